/** Work that goes on while a screen is shown: asking again, waiting, doing something once typing pauses. */

/**
 * Do something now and every so often, one at a time, only while the page is visible, until the signal aborts.
 * @param {() => Promise<void>} work
 * @param {number} everyMs
 * @param {AbortSignal} signal
 */
export function poll(work, everyMs, signal) {
  let timer = 0;
  let busy = false;
  const round = async () => {
    window.clearTimeout(timer);
    if (signal.aborted || busy || document.hidden) return;
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
      if (!signal.aborted) timer = window.setTimeout(round, everyMs);
    }
  };
  document.addEventListener("visibilitychange", round, { signal });
  signal.addEventListener("abort", () => window.clearTimeout(timer));
  round();
}

/** Call it once no other call has come for so long. @returns {(...args: *) => void} */
export function debounce(work, waitMs, signal) {
  let timer = 0;
  signal?.addEventListener("abort", () => window.clearTimeout(timer));
  return (...args) => {
    window.clearTimeout(timer);
    if (!signal?.aborted) timer = window.setTimeout(() => work(...args), waitMs);
  };
}

/** Whether an error only says that the reader has gone elsewhere. */
export function isAbort(error) {
  return error?.name === "AbortError";
}
