package gateway

import (
	"net/http"
	"strings"
)

// This file keeps what people saw while they were signed in out of caches (RFC 9111).

// presetCaching sets what an answer says about caching unless the handler of a Go app says otherwise. s says whether
// somebody is signed in.
func (h *Handler) presetCaching(w http.ResponseWriter, signedIn bool) {
	if signedIn {
		w.Header().Set("Cache-Control", h.unsaid())
	}
	w.Header().Add("Vary", "Cookie")
}

// unsaid returns the Cache-Control of an answer to somebody who is signed in, if the app says nothing.
func (h *Handler) unsaid() string {
	if h.NoStore {
		return "no-store"
	}
	return "private"
}

// limitCaching changes what an answer of the app says about caching, so that no shared cache keeps an answer that only
// signed-in users get: such a cache would give it to anybody, without asking the gateway. The app does not know that.
// More than the app allows is never allowed.
//
//   - Where the app says nothing, an answer to somebody who is signed in becomes `private`. `Vary: Cookie` keeps
//     answers to different cookies apart. (After the Back button Chromium uses its cache all the same: see NoStore.)
//   - On paths that need a session, `public` becomes `private`, s-maxage is removed, and so are headers for shared
//     caches alone. How long a browser may keep the answer stays as it is.
//   - With NoStore nothing is kept, except files that the app calls public or immutable.
func (h *Handler) limitCaching(header http.Header, v requestState) {
	said := header["Cache-Control"]
	if len(said) == 0 {
		addVary(header, "Cookie")
	}
	if v.session == nil {
		return
	}
	if len(said) == 0 {
		header.Set("Cache-Control", h.unsaid())
	}
	if v.public && !h.NoStore {
		return
	}
	directives := splitList(strings.Join(said, ","))
	file := false // the app means everybody to have it
	kept, changed, closed := directives[:0:0], len(said) == 0, false
	for _, d := range directives {
		name, value, qualified := strings.Cut(strings.ToLower(d), "=")
		switch name = strings.TrimSpace(name); {
		case name == "public" || name == "s-maxage" && strings.Trim(value, `" `) != "0":
			file, changed = file || name == "public", true
			continue
		case name == "immutable":
			file = true
		case name == "no-store" || name == "private" && !qualified:
			closed = true
		}
		kept = append(kept, d)
	}
	if h.NoStore && (!file || isHTML(header)) {
		header.Set("Cache-Control", "no-store")
	} else if !v.public && len(said) > 0 && (changed || !closed) {
		if !closed {
			kept = append(kept, "private")
		}
		header.Set("Cache-Control", strings.Join(kept, ", "))
	}
	if v.public && file {
		return
	}
	for name := range header {
		switch name {
		case "X-Accel-Expires", "Surrogate-Control", "Edge-Control", "Cdn-Cache-Control":
			delete(header, name)
		default:
			if strings.HasSuffix(name, "-Cdn-Cache-Control") { // RFC 9213
				delete(header, name)
			}
		}
	}
}

// splitList splits a list at commas that are not within quotes.
func splitList(list string) (all []string) {
	begin, quoted := 0, false
	add := func(item string) {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			add(list[begin:i])
			begin = i + 1
		}
	}
	add(list[begin:])
	return all
}

// addVary adds a name to Vary, unless it is there.
func addVary(header http.Header, name string) {
	for _, there := range splitList(strings.Join(header["Vary"], ",")) {
		if there == "*" || strings.EqualFold(there, name) {
			return
		}
	}
	header.Add("Vary", name)
}
