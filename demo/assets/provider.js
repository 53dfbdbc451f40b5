// The provider's page follows what happens.
"use strict";
new EventSource("/live").onmessage = async () => {
  const answer = await fetch("/");
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (fresh.body.innerHTML !== document.body.innerHTML) {
    document.body.replaceWith(fresh.body);
    const now = document.documentElement.dataset, then = fresh.documentElement.dataset;
    now.state = then.state;
    report(then.state, then.user);
  }
};
