/**
 * A file of JSON lines, sent to a vault slice by slice. Nothing of it is in memory but the slice under way.
 * A slice is stored wholly or not at all; one that was stored already adds nothing, so going on after a break is safe.
 */

import { api } from "./api.js";

const READ_BYTES = 1024 * 1024;
const SLICE_LINES = 500;
const SLICE_BYTES = 512 * 1024;
const ATTEMPTS = 5;
const EXPORT_FORMAT = "memoryrouter-export";

/** What an import has reached. */
export class Import {
  /** @param {File} file @param {string} vault */
  constructor(file, vault) {
    this.file = file;
    this.vault = vault;
    this.offset = 0; // bytes that are stored
    this.line = 0; // lines that are stored
    this.stored = 0;
    this.duplicates = 0;
  }

  /**
   * Send what is left. Where it throws, `run` may be called again and goes on.
   * @param {{signal: AbortSignal, onprogress: () => void}} options
   */
  async run({ signal, onprogress }) {
    for await (const slice of slicesOf(this.file, this.offset)) {
      signal.throwIfAborted();
      if (slice.text.trim()) await this.#send(slice, signal);
      this.offset += slice.bytes;
      this.line += slice.lines;
      onprogress();
    }
  }

  async #send({ text }, signal) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const { stats } = await api.post("v1/memory/upload", { vault: this.vault, body: text, type: "application/x-ndjson", signal });
        this.stored += stats.stored;
        this.duplicates += stats.duplicates;
        return;
      } catch (error) {
        const busy = error.status === 429 || error.status === 503;
        if (!busy || attempt === ATTEMPTS) throw this.#inFile(error);
        await pause((error.retryAfter || attempt) * 1000, signal);
      }
    }
  }

  /** The server counts lines of the slice; a reader counts those of the file. */
  #inFile(error) {
    const said = /^Line (\d+): ([\s\S]*)/.exec(error.message ?? "");
    if (said) {
      error.message = `Line ${this.line + Number(said[1])}: ${said[2]}`;
      error.hint = this.line ? `Nothing of lines ${this.line + 1} and after was stored.` : "Nothing was stored.";
    }
    return error;
  }
}

/** Whether a file is an export of ours, which carries a checksum and is imported as a whole. */
export async function isExport(file) {
  const head = await file.slice(0, 4096).text();
  return head.trimStart().startsWith(`{"format":"${EXPORT_FORMAT}"`);
}

/** `{text, bytes, lines}`: whole lines of a file from a byte on. */
async function* slicesOf(file, from) {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });
  let rest = "";
  for (let at = from; at < file.size; at += READ_BYTES) {
    const last = at + READ_BYTES >= file.size;
    rest += decode(decoder, await file.slice(at, at + READ_BYTES).arrayBuffer(), !last);
    const lines = rest.split("\n");
    rest = last ? "" : lines.pop();
    for (const text of slicesOfLines(lines, last)) yield { text, bytes: encoder.encode(text).length, lines: text.split("\n").length - 1 };
  }
}

function decode(decoder, data, stream) {
  try {
    return decoder.decode(data, { stream });
  } catch {
    throw Object.assign(new Error("The file is not UTF-8 text."), { hint: "Save it as UTF-8 and choose it again." });
  }
}

function* slicesOfLines(lines, last) {
  let slice = [];
  let characters = 0;
  for (const [index, line] of lines.entries()) {
    slice.push(line);
    characters += line.length + 1;
    const ends = index === lines.length - 1;
    if (ends || slice.length === SLICE_LINES || characters >= SLICE_BYTES) {
      yield slice.join("\n") + (ends && last ? "" : "\n");
      slice = [];
      characters = 0;
    }
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = window.setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (window.clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
