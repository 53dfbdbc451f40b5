"use strict";
// For a page with a list: shows times as the browser does, and ends a session without loading the page anew.
{
  const format = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "short" });
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.textContent = format.format(new Date(time.dateTime));
  }
  const done = document.getElementById("done");
  for (const form of document.querySelectorAll("li form")) {
    if (!form.elements.session) continue;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      if (button.disabled) return;
      button.disabled = true;
      try {
        const answer = await fetch(form.action, {
          method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" },
        });
        if (!answer.ok) throw new Error(answer.status);
        for (const id of (await answer.json()).ended) document.getElementById("item-" + id)?.remove();
        form.closest("li")?.remove();
        done.textContent = done.dataset.done;
        document.querySelector("h1").focus();
      } catch {
        button.disabled = false;
        form.submit(); // the page that comes says what is wrong
      }
    });
  }
}
