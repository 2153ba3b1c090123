"""JSON that is drawn at random, in the words of the formats that are read."""

from __future__ import annotations

from hypothesis import strategies as st

# Words that readers look for, so that drawn JSON gets past the first look.
_NAMES = """
    mapping current_node message author role content parts content_type metadata create_time id parent children
    chat_messages sender text uuid created_at parent_message_uuid type attachments file_name conversations_memory
    project_memories docs memory results run_id user_id facts fact role_type messages episodes edges timestamp
    session_id format title name recipient
"""
NAMES = st.sampled_from(_NAMES.split())
WORDS = st.sampled_from(
    ["user", "assistant", "system", "tool", "human", "text", "all", "root", "", "hello", "2024-01-01"]
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 2**65) | st.floats() | WORDS | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | WORDS, inner, max_size=4),
    max_leaves=25,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
