// An open tab of an app: it listens for the end of its own session, and puts away what it shows when that comes.
"use strict";
if (document.documentElement.dataset.state === "in") {
  const because = {
    backchannel: "Your provider said so, and this page heard it at once.",
    user: "You signed out in another tab.",
    replaced: "Somebody signed in here anew.",
    expired: "You were signed in for long enough.",
  };
  const events = new EventSource("/auth/events");

  const end = (cause) => {
    events.close();
    const ended = document.getElementById("ended").content.cloneNode(true);
    ended.getElementById("why").textContent = `${because[cause] || "Your session has ended."} What was shown here has been put away.`;
    document.body.replaceChildren(ended);
    document.title = "Signed out";
    document.documentElement.dataset.state = "ended";
    report("ended");
  };

  events.addEventListener("ended", (e) => end(JSON.parse(e.data).cause));
  // A stream that is refused, or a page that comes back from the browser's memory, has to ask.
  const ask = async () => {
    const answer = await fetch("/auth/session");
    if (answer.status === 401) {
      end("");
    } else if (answer.ok) {
      const since = new Date((await answer.json()).created);
      document.getElementById("since").textContent = " · since " + since.toTimeString().slice(0, 8);
    }
  };
  events.addEventListener("error", () => { if (events.readyState === EventSource.CLOSED) ask(); });
  addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
  // Who signs out right here is on the way elsewhere, and needs no telling.
  document.querySelector("form").addEventListener("submit", () => events.close());
  ask();
}
