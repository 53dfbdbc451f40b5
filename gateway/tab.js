// Notifies this tab when its session has ended, and covers what it shows. See docs/tabs.md.
(() => {
  "use strict";
  const d = document, tag = d.currentScript, {mode, to} = tag.dataset, base = new URL(".", tag.src);
  const on = (target, name, f) => target.addEventListener(name, f);
  const sheet = (css) => { const s = new CSSStyleSheet(); s.replaceSync(css); return s; };
  // It must not move anything: the page may be shown again.
  const cover = sheet("body,body *{opacity:0!important;visibility:hidden!important;transition:none!important}");
  const hide = (yes) => {
    d.adoptedStyleSheets = d.adoptedStyleSheets.filter((s) => s !== cover).concat(yes ? cover : []);
  };
  // over: there is nothing to wait for any more. alive: the session lived while this page was open.
  let session = tag.dataset.session || "", over, alive, source, timer, channel, queue, free, tick = Date.now();

  const close = () => { clearTimeout(timer); source?.close(); source = null; };
  const stop = () => { close(); queue?.abort(); free?.(); channel?.close(); queue = free = channel = null; };

  const show = (n) => {
    const host = d.createElement("curfew-ended"), shade = host.attachShadow({mode: "open"});
    const box = d.createElement("dialog");
    shade.adoptedStyleSheets = [sheet(n.style)];
    for (const [name, text] of [["h1", n.title], ["p", n.text], ["button", n.action]])
      box.appendChild(d.createElement(name)).textContent = text;
    box.lastChild.onclick = () => location.replace(location.href.split("#")[0]);
    box.ariaLabel = d.title = n.title;
    box.lang = n.lang;
    box.dir = n.dir;
    box.oncancel = (e) => e.preventDefault();
    box.onclose = () => box.showModal();
    shade.append(box);
    d.documentElement.append(host);
    box.showModal();
    d.querySelectorAll("video,audio").forEach((m) => m.pause());
  };

  const end = (notice, heard) => {
    if (over) return;
    over = 1;
    if (!heard) channel?.postMessage({session, notice});
    stop();
    const known = d.dispatchEvent(new CustomEvent("curfew:ended", {detail: notice, cancelable: true}));
    if (!known || mode === "event") return hide();
    hide(1);
    // A page that was out of date from the start came from a cache, and might do so again and again.
    if (alive && mode === "reload") location.reload();
    else if (alive && mode === "redirect") location.replace(to || base + "logout");
    else show(notice);
  };

  // Browsers allow few connections to a host over HTTP/1.1. So one tab of each session listens, the one in front, and
  // tells the others.
  const lead = (steal) => {
    queue?.abort();
    const mine = queue = new AbortController(), {signal} = mine;
    navigator.locks?.request("curfew " + session, steal ? {steal} : {signal}, () => {
      if (queue !== mine) return;
      listen();
      return new Promise((done) => free = done);
    }).catch(() => {
      if (queue !== mine) return;
      free = null;
      close();
      lead();
    });
  };

  const listen = () => {
    if (over || source) return;
    const s = source = new EventSource(base + "events?session=" + session);
    on(s, "session", (e) => {
      session = e.data;
      alive = 1;
      hide();
      if (!free) lead(!d.hidden);
      timer = setTimeout(() => free || !navigator.locks || close(), 1e3);
    });
    on(s, "ended", (e) => end(JSON.parse(e.data)));
    on(s, "nobody", () => { over = 1; stop(); });
    s.onerror = () => {
      // While it is connecting, it tries again by itself.
      if (s.readyState < 2) return;
      close();
      timer = setTimeout(listen, 5e3 + 1e4 * Math.random());
    };
  };

  const check = () => { if (channel) { close(); listen(); } };
  const start = () => {
    if (over || channel) return;
    channel = new BroadcastChannel("curfew");
    channel.onmessage = ({data}) => data.session === session && end(data.notice, 1);
    check();
  };
  const sleep = () => { if (!over && session) { stop(); hide(1); } };

  on(window, "pagehide", (e) => e.persisted && sleep());
  on(window, "pageshow", (e) => e.persisted && start());
  on(d, "freeze", sleep);
  on(d, "resume", start);
  on(d, "visibilitychange", () => d.hidden || check());
  // The machine slept. A hidden tab's timers run once in a minute.
  setInterval(() => { if (Date.now() - tick > 9e4) check(); tick = Date.now(); }, 1e4);
  start();
})();
