// Tells the page that shows all sites side by side what this one shows. Alone in a tab it tells nobody.
"use strict";
function report(state, user) {
  if (parent !== window) {
    parent.postMessage({ state, user: user || "" }, document.documentElement.dataset.overview);
  }
}
{
  const data = document.documentElement.dataset;
  report(data.state, data.user);
  addEventListener("pagehide", () => report("away"));
}
