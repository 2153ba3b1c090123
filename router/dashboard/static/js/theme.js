/** Light, dark, or as the system says. Owns the choice, kept in this browser; before the first paint it is in force. */

const KEPT = "memoryrouter-theme";
const CHOICES = ["auto", "light", "dark"];

/** What is chosen: "auto", "light" or "dark". */
export function currentTheme() {
  try {
    const kept = window.localStorage.getItem(KEPT);
    return CHOICES.includes(kept) ? kept : "auto";
  } catch {
    return "auto"; // storage may be forbidden
  }
}

/** Choose, keep and apply. @param {"auto"|"light"|"dark"} theme */
export function setTheme(theme) {
  try {
    window.localStorage.setItem(KEPT, theme);
  } catch {
    // It holds until the page is left, then.
  }
  applyTheme();
}

/** The choice that follows: auto, light, dark, and again. */
export function nextTheme() {
  return CHOICES[(CHOICES.indexOf(currentTheme()) + 1) % CHOICES.length];
}

/** Make the page look as chosen. */
function applyTheme() {
  const theme = currentTheme();
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
}

applyTheme();
