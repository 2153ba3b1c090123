"""What is done to a text before it is remembered: cleaned, judged, compared, prepared for the embedding
model.

Owns the rules that decide whether two texts are the same and whether one carries anything. Must stay linear
in the length of the text, whatever it contains: texts come from strangers.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from models.memory import Role
from models.rendering import CLOSING_SENTENCE, CONTEXT_CLOSE, CONTEXT_OPEN, CONTINUATION, ENTRY_OPEN
from models.words import PICTOGRAPHS, WORD_CHARACTERS

REPLACEMENT_CHARACTER = "\ufffd"
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*+")
_CARRYING = re.compile(rf"[{WORD_CHARACTERS}{PICTOGRAPHS}]+")
_CARRYING_ASCII = bytes(
    code if code < 128 and _CARRYING.match(chr(code)) else ord(" ") for code in range(256)
)  # for `bytes.translate`: all that carries nothing becomes a space
_APOSTROPHES = str.maketrans({"\u2019": "'", "`": "'"})

_SMALL_TALK_CHARACTERS_MAX = 60
_PHRASE_WORDS_MAX = 4

# Each of these says nothing by itself; a text made of them alone is small talk. Words that are also names or
# places ("will", "may", "nice", "grant") stand only inside phrases. English, German, French, Spanish,
# Portuguese, Italian, Dutch, Polish, Russian, Turkish, Chinese, Japanese, Korean.
_SMALL_TALK_TEXT = """
    ok, okay, okey, k, kk, okie, alright, all right, right, sure, sure thing, of course, fine, yes, yeah,
    yep, yup, ya, yes please, no, nope, nah, no thanks, no thank you, please, pls, plz, thanks, thank you,
    thank u, thx, ty, tysm, thanks a lot, thanks so much, thank you so much, thank you very much,
    many thanks, cheers, lol, lmao, rofl, haha, hahaha, hahahaha, hehe, heh, hmm, hm, mhm, mm, uh, um, oh,
    ah, aha, wow, whoa, cool, great, awesome, perfect, excellent, amazing, wonderful, brilliant, nice one,
    very nice, so nice, that's nice, that's great, that's cool, that's fine, that works, sounds good,
    sounds great, looks good, makes sense, got it, gotcha, i see, i understand, understood, noted,
    will do, no problem, no worries, np, you're welcome, you are welcome, never mind, nevermind, good,
    very good, good job, well done, good morning, good afternoon, good evening, good night, hi, hello,
    hey, hi there, hello there, hey there, bye, bye bye, goodbye, good bye, see you, see you later,
    see ya, later, ttyl, agreed, exactly, indeed, absolutely, definitely, correct, done, go on, go ahead,
    continue, next, idk, i don't know, danke, danke schön, danke sehr, vielen dank, bitte, ja, nein, doch,
    genau, alles klar, klar, gut, super, hallo, guten morgen, guten tag, guten abend, gute nacht, tschüss,
    ja bitte, nein danke, merci, merci beaucoup, oui, non, d'accord, bonjour, bonsoir, salut, au revoir,
    s'il vous plaît, s'il te plaît, bien sûr, très bien, parfait, gracias, muchas gracias, sí, si, vale,
    claro, hola, adiós, por favor, de nada, buenos días, buenas noches, perfecto, obrigado, obrigada, sim,
    não, olá, tchau, bom dia, boa noite, grazie, grazie mille, prego, ciao, buongiorno, va bene, certo,
    dank je, dank u, bedankt, nee, hoi, doei, dzięki, dziękuję, tak, nie, cześć, спасибо, большое спасибо,
    да, нет, ок, хорошо, привет, пока, понятно, ладно, teşekkürler, evet, hayır, tamam, merhaba, 谢谢,
    謝謝, 好的, 好, 是的, 嗯, 你好, 再见, 明白了, ありがとう, ありがとうございます, はい, いいえ,
    わかりました, こんにちは, 네, 예, 아니요, 감사합니다, 고마워, 고마워요, 안녕하세요, 알겠습니다
"""  # noqa: RUF001 - letters of other scripts are meant
_SMALL_TALK = frozenset(" ".join(phrase.split()) for phrase in _SMALL_TALK_TEXT.split(","))


def clean(text: str) -> str:
    """A text as it is stored: our own context blocks taken out, NUL and lone surrogates replaced, ends
    stripped.

    Clients send back what they were given, so a block of memories may stand in the text of a user; storing it
    would remember memories of memories. The result may be empty.
    """
    if CONTEXT_OPEN in text:
        text = _without_context_blocks(text)
    if not text.isascii() or "\0" in text:
        text = _UNSTORABLE.sub(REPLACEMENT_CHARACTER, text)
    return text.strip()


def is_small_talk(text: str) -> bool:
    """Whether a text carries nothing: "ok", "thanks!", "yes please", "lol", emoji or punctuation alone.

    A short closed list decides, so that nothing with a number, a name or an unknown word is ever lost.
    """
    if len(text) > _SMALL_TALK_CHARACTERS_MAX:
        return False
    words = _WORD.findall(text.translate(_APOSTROPHES).casefold())
    position = 0
    while position < len(words):
        for count in range(min(_PHRASE_WORDS_MAX, len(words) - position), 0, -1):
            if " ".join(words[position : position + count]) in _SMALL_TALK:
                position += count
                break
        else:
            return False
    return True


def normalised(text: str) -> str:
    """The words of a text without case, punctuation and spacing: equal for near-duplicates, for nothing else.

    Vowel signs and pictographs count: without them two Hindi words, or "I feel" with a smile and with a tear, would be
    one. A text without either (a formula of signs) keeps its characters, so that such texts do not all become equal.
    """
    if text.isascii():  # the same, five times as fast: it is done for every text that is stored and shown
        folded = text.lower()
        return b" ".join(folded.encode("ascii").translate(_CARRYING_ASCII).split()).decode("ascii") or "".join(
            folded.split()
        )
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_CARRYING.findall(folded)) or "".join(folded.split())


def content_hash(text: str) -> bytes:
    """BLAKE2b-128 of the exact text in UTF-8: part of a message's identity, never a secret."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def embedding_text(role: Role, chunk: str) -> str:
    """What the embedding model reads for a chunk.

    The chunk alone: a "user: " or "assistant: " before it changed recall by less than the noise on both
    development sets (any@10 LoCoMo 85.9 against 85.6, BEAM 80.4 against 78.8 with the prefix).
    """
    return chunk


def _without_context_blocks(text: str) -> str:
    """The text without our blocks, each with the sentence that closes it.

    What stood before and behind a block stays apart: joined, halves of a tag would make one.
    """
    kept: list[str] = []
    position = 0
    close = 0
    while (start := text.find(CONTEXT_OPEN, position)) >= 0:
        kept.append(text[position:start])
        body = start + len(CONTEXT_OPEN)
        if 0 <= close < body:  # looked for once: an unterminated tag must not cost a scan each
            close = text.find(CONTEXT_CLOSE, body)
        position = _end_of_block(text, close) if close >= 0 else _end_of_entries(text, body)
    kept.append(text[position:])
    return _apart(kept)


def _apart(parts: list[str]) -> str:
    """Parts in a row, with a space where words would touch."""
    joined = [parts[0]]
    for part in parts[1:]:
        if part:
            ends = joined[-1][-1:]
            joined.append(part if not ends or ends.isspace() or part[0].isspace() else f" {part}")
    return "".join(joined)


def _end_of_block(text: str, close: int) -> int:
    """Where the text goes on after a closing tag and its sentence."""
    end = close + len(CONTEXT_CLOSE)
    sentence = _skip_space(text, end)
    if text.startswith(CLOSING_SENTENCE, sentence):
        return _skip_space(text, sentence + len(CLOSING_SENTENCE))
    return end


def _end_of_entries(text: str, position: int) -> int:
    """Where the text goes on after a tag that is never closed: behind the lines that have the shape of
    memories."""
    while True:
        line = _skip_blank_lines(text, position)
        if not text.startswith((ENTRY_OPEN, CONTINUATION), line):
            return position
        end = text.find("\n", line)
        if end < 0:
            return len(text)
        position = end + 1


_BLANK_LINES = re.compile(r"(?:[^\S\n]*+\n)*+")
_SPACE = re.compile(r"\s*+")


def _skip_blank_lines(text: str, position: int) -> int:
    """The start of the first line from here on that is not blank."""
    match = _BLANK_LINES.match(text, position)
    return match.end() if match else position


def _skip_space(text: str, position: int) -> int:
    """The first position from here on that is not white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position
