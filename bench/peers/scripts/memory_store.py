"""One store of memories in a process of its own: opened, filled, asked. All times are taken here, around its calls.

    python memory_store.py STORE MODEL_DIR THREADS

Runs with the packages of the store's environment, and with this repository on the path for the one embedding model that
all share: `models.embedding`, its rewritten graph, micro-batches and tokenizer, handed to the store through whatever
interface it has for embeddings. Reads commands and writes answers, one line of JSON each:

    {"do": "add", "texts": [[user, text], ...]}                      -> {"latencies_s": [...], "seconds": s}
    {"do": "fill", "texts": [[user, text], ...], "batch": n}          -> the same, of batches
    {"do": "fill", ..., "vectors": "FILE.npy"}                        -> the same, without running the model
    {"do": "ask", "texts": [[user, question], ...], "clients": n, "limit": n, "filtered": true}
                                                                     -> the same, and "found": [n, ...]
"""

# Each class speaks to another package, whose types only its own environment knows.
# ruff: noqa: ANN001, ANN201, ANN202, ANN204, ANN205, D102

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np

from models.embedding import open_embedding_model
from models.model_files import ModelFiles

DIMS = 384


class Mem0:
    """Its `Memory` with the local Qdrant; no model of language writes or reads (`infer=False`)."""

    def __init__(self, encode):
        from mem0 import Memory
        from mem0.embeddings.base import EmbeddingBase

        class Embedding(EmbeddingBase):
            def embed(self, text, memory_action=None):
                return encode([text])[0].tolist()

            def embed_batch(self, texts, memory_action="add"):
                return encode(texts).tolist()

        qdrant = {"path": "qdrant", "embedding_model_dims": DIMS, "on_disk": True, "collection_name": "memories"}
        self._memory = Memory.from_config(
            {
                "vector_store": {"provider": "qdrant", "config": qdrant},
                "embedder": {"provider": "openai", "config": {"api_key": "none", "embedding_dims": DIMS}},
                "llm": {"provider": "openai", "config": {"api_key": "none"}},
                "history_db_path": "history.db",
            }
        )
        self._memory.embedding_model = Embedding()

    def add(self, user, texts):
        messages = [{"role": "user", "content": text} for text in texts]
        self._memory.add(messages, user_id=user, infer=False)

    def ask(self, user, question, limit, filtered):
        return len(self._memory.search(question, filters={"user_id": user}, top_k=limit, threshold=0.0)["results"])


class Chroma:
    """A collection with `user` in the metadata; on disk in this process, or behind Chroma's own server."""

    def __init__(self, encode):
        import chromadb
        from chromadb.api.types import EmbeddingFunction

        class Embedding(EmbeddingFunction):
            def __init__(self):
                pass

            def __call__(self, input):
                return list(encode(list(input)))

            @staticmethod
            def name():
                return "bench"

            def get_config(self):
                return {}

            @staticmethod
            def build_from_config(config):
                return Embedding()

        self._embedding = Embedding()
        port = os.environ.get("CHROMA_PORT")
        settings = chromadb.config.Settings(anonymized_telemetry=False)
        if port:
            self._client = chromadb.HttpClient(host="127.0.0.1", port=int(port), settings=settings)
        else:
            self._client = chromadb.PersistentClient(path="chroma", settings=settings)
        self._number = 0
        self._collections = {}

    def _of(self, user):
        """The collection of a user: one for all here."""
        name = self._name(user)
        if name not in self._collections:
            self._collections[name] = self._client.get_or_create_collection(
                name, embedding_function=self._embedding, configuration={"hnsw": {"space": "cosine"}}
            )
        return self._collections[name]

    def _name(self, user):
        return "memories"

    def add(self, user, texts):
        ids = [f"{self._number + place}" for place in range(len(texts))]
        self._number += len(texts)
        self._of(user).add(ids=ids, documents=texts, metadatas=[{"user": user}] * len(texts))

    def ask(self, user, question, limit, filtered):
        where = {"user": user} if filtered else None
        return len(self._of(user).query(query_texts=[question], n_results=limit, where=where)["ids"][0])


class ChromaByUser(Chroma):
    """A collection for each user, and so no filter."""

    def _name(self, user):
        return f"memories-{user}"

    def ask(self, user, question, limit, filtered):
        return super().ask(user, question, limit, False)


class LangChain:
    """Its in-memory store, behind the retriever that `as_retriever` gives. Nothing is kept on disk."""

    def __init__(self, encode):
        from langchain_core.documents import Document
        from langchain_core.embeddings import Embeddings
        from langchain_core.vectorstores import InMemoryVectorStore

        class Embedding(Embeddings):
            def embed_documents(self, texts):
                return encode(texts).tolist()

            def embed_query(self, text):
                return encode([text])[0].tolist()

        self._document = Document
        self._store = InMemoryVectorStore(Embedding())

    def add(self, user, texts):
        self._store.add_documents([self._document(page_content=text, metadata={"user": user}) for text in texts])

    def ask(self, user, question, limit, filtered):
        options = {"k": limit}
        if filtered:
            options["filter"] = lambda document: document.metadata["user"] == user
        return len(self._store.as_retriever(search_kwargs=options).invoke(question))


class LlamaIndex:
    """Its default index of vectors, behind its retriever. Nothing is kept on disk."""

    def __init__(self, encode):
        from llama_index.core import VectorStoreIndex
        from llama_index.core.base.embeddings.base import BaseEmbedding
        from llama_index.core.schema import TextNode
        from llama_index.core.vector_stores import ExactMatchFilter, MetadataFilters

        class Embedding(BaseEmbedding):
            def _get_text_embedding(self, text):
                return encode([text])[0].tolist()

            def _get_text_embeddings(self, texts):
                return encode(texts).tolist()

            def _get_query_embedding(self, query):
                return encode([query])[0].tolist()

            async def _aget_query_embedding(self, query):
                return self._get_query_embedding(query)

        self._node, self._filter, self._filters = TextNode, ExactMatchFilter, MetadataFilters
        self._index = VectorStoreIndex(nodes=[], embed_model=Embedding(embed_batch_size=100))

    def add(self, user, texts):
        # The user is for filtering: it would otherwise be embedded with the text.
        excluded = {"excluded_embed_metadata_keys": ["user"]}
        self._index.insert_nodes([self._node(text=text, metadata={"user": user}, **excluded) for text in texts])

    def ask(self, user, question, limit, filtered):
        filters = self._filters(filters=[self._filter(key="user", value=user)]) if filtered else None
        return len(self._index.as_retriever(similarity_top_k=limit, filters=filters).retrieve(question))


class Encoder:
    """The model, and the vectors of texts that were embedded elsewhere."""

    def __init__(self, model):
        self._model = model
        self._given = {}

    def give(self, texts, path):
        self._given = dict(zip(texts, np.load(path), strict=True)) if path else {}

    def encode(self, texts):
        if self._given and all(text in self._given for text in texts):
            return np.stack([self._given[text] for text in texts])
        return self._model.encode(texts)


STORES = {
    "mem0": Mem0,
    "chroma": Chroma,
    "chroma-by-user": ChromaByUser,
    "langchain": LangChain,
    "llama-index": LlamaIndex,
}


def fill(store, texts, batch):
    latencies_s, began_s = [], time.perf_counter()
    for user, of_user in groupby(texts, key=lambda one: one[0]):
        mine = [text for _, text in of_user]
        for start in range(0, len(mine), batch):
            at_s = time.perf_counter()
            store.add(user, mine[start : start + batch])
            latencies_s.append(time.perf_counter() - at_s)
    return {"latencies_s": latencies_s, "seconds": time.perf_counter() - began_s}


def ask(store, texts, clients, limit, filtered):
    def one(pair):
        at_s = time.perf_counter()
        found = store.ask(*pair, limit, filtered)
        return time.perf_counter() - at_s, found

    began_s = time.perf_counter()
    if clients == 1:
        results = [one(pair) for pair in texts]
    else:
        with ThreadPoolExecutor(clients) as pool:
            results = list(pool.map(one, texts))
    seconds = time.perf_counter() - began_s
    return {"latencies_s": [r[0] for r in results], "found": [r[1] for r in results], "seconds": seconds}


def main(name, model_dir, threads):
    folder = Path(model_dir)
    tokenizer = folder / "tokenizer.json"  # the graph lies there already, rewritten
    files = ModelFiles("shared", folder / "model.onnx", tokenizer, prepared_dir=folder)
    model = open_embedding_model(folder, threads=int(threads), files=files)
    encoder = Encoder(model)
    store = STORES[name](encoder.encode)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints must not come between the answers
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command.pop("do") == "ask":
            answer = ask(store, **command)
        else:
            encoder.give([text for _, text in command["texts"]], command.get("vectors"))
            answer = fill(store, command["texts"], command.get("batch", 1))
            encoder.give([], None)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
