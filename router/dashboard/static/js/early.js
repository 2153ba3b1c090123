/* Before the first paint, and so no module: the theme that was chosen in this browser, see theme.js. */
try {
  var kept = window.localStorage.getItem("memoryrouter-theme");
  if (kept === "light" || kept === "dark") document.documentElement.setAttribute("data-theme", kept);
} catch (error) {
  // Storage may be forbidden: then it looks as the system says.
}
