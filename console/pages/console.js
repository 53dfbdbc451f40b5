"use strict";
// Puts newer events on top of the table, every second, and says when that does not work.
{
  const live = document.getElementById("live"), rows = document.getElementById("rows");
  const pause = document.getElementById("pause"), state = document.getElementById("state");
  let after = live.dataset.after, paused = false, used = Date.now();
  const most = 500, attentive = 5 * 60_000, patience = 30_000;
  for (const kind of ["pointermove", "keydown"]) addEventListener(kind, () => { used = Date.now() });
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    say(paused ? "Paused." : "Live.");
  });
  const say = (text) => { if (state.textContent !== text) state.textContent = text };
  const next = async () => {
    if (!paused && !document.hidden) {
      try {
        const answer = await fetch(live.dataset.rows + location.search + (location.search ? "&" : "?") + "after=" + after,
          { cache: "no-store", headers: { "Curfew-Token": live.dataset.token } });
        if (answer.status === 401 || answer.status === 403 || answer.status === 404) { // it has to be asked anew who this is
          if (Date.now() - used < attentive && performance.now() > patience) return location.reload();
          rows.replaceChildren();
          return say("Stopped. Reload the page to go on.");
        }
        if (!answer.ok) throw new Error(answer.status);
        const body = new DOMParser().parseFromString("<table><tbody>" + await answer.text() + "</tbody></table>", "text/html");
        after = answer.headers.get("Curfew-Next") || after;
        rows.prepend(...body.querySelectorAll("tbody > tr"));
        while (rows.rows.length > most) rows.deleteRow(-1);
        say("Live.");
      } catch {
        say("The gateway does not answer; trying again.");
      }
    }
    setTimeout(next, 1000);
  };
  next();
}
