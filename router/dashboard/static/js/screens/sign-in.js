/** Signing in with an account key. The key goes to the server once and is not kept in this page. */

import { signIn } from "../api.js";
import { busyWhile, button, errorState, field, textInput } from "../components.js";
import { h, replace } from "../dom.js";

export const title = "Sign in";

/**
 * @param {Element} root
 * @param {{reason?: string, onsignedin: () => void}} what
 */
export function show(root, { reason = "", onsignedin }) {
  const key = field("Account key", textInput({ type: "password", name: "key", autocomplete: "current-password", placeholder: "mk_…", required: true, class: "input input-code" }), {
    hint: "The first start of the server printed it. It is sent once and not kept in this browser.",
  });
  const problem = h("div");
  const go = button("Sign in", { kind: "primary", type: "submit", class: "button-wide" });
  const form = h("form", { class: "form", novalidate: true, onsubmit: submit }, key.element, problem, go);
  const lost = h(
    "details",
    { class: "sign-in-help" },
    h("summary", null, "No account key at hand?"),
    h("p", null, "On the machine of the server, this makes a new one in place of a lost one:"),
    h("pre", { tabindex: "0", role: "region", "aria-label": "Command" }, h("code", null, "memoryrouter keys replace-account-key")),
    h("p", null, "Keys of users open one vault each; they do not sign in here."),
  );
  replace(
    root,
    h(
      "main",
      { class: "sign-in" },
      h("img", { src: "/dashboard/static/logo.svg", alt: "", width: "40", height: "40" }),
      h("h1", null, "Sign in to MemoryRouter"),
      reason && h("p", { class: "sign-in-reason", role: "status" }, reason),
      form,
      lost,
    ),
  );
  key.control.focus();

  async function submit(event) {
    event.preventDefault();
    key.setError("");
    replace(problem);
    const value = key.control.value.trim();
    if (!value) {
      key.setError("Enter your account key.");
      key.control.focus();
      return;
    }
    try {
      await busyWhile(go, () => signIn(value));
      key.control.value = "";
      onsignedin();
    } catch (error) {
      refuse(error);
    }
  }

  function refuse(error) {
    if (error.status === 401 || error.status === 403) {
      key.setError([error.message, error.hint].filter(Boolean).join(" "));
      key.control.select();
    } else {
      replace(problem, errorState(error));
    }
    key.control.focus();
  }
}
