"use strict";
// Puts newer events on top of the table, every second, and says when that does not work.
{
  const live = document.getElementById("live"), rows = document.getElementById("rows");
  const pause = document.getElementById("pause"), state = document.getElementById("state");
  let after = live.dataset.after, paused = false;
  const most = 500;
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
        const answer = await fetch("/console/events/rows" + location.search + (location.search ? "&" : "?") + "after=" + after,
          { cache: "no-store" });
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
