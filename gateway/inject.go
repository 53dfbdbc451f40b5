package gateway

import (
	"bytes"
	"cmp"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/html"

	"example.com/curfew/web"
)

// This file puts the script for open tabs into the pages of apps.

// TabMode is what a page does when its session has ended.
type TabMode string

// The modes. In each of them the script first dispatches the event `curfew:ended` at the document.
const (
	TabsOff      TabMode = "off"      // the pages do not get the script
	TabsOverlay  TabMode = "overlay"  // a notice covers the page
	TabsReload   TabMode = "reload"   // the page is loaded again, which leads to the sign-in
	TabsRedirect TabMode = "redirect" // the browser goes to /auth/logout, which says that nobody is signed in
	TabsEvent    TabMode = "event"    // nothing more: the app acts on the event
)

// CheckTabMode returns an error unless mode is one of the modes, or empty.
func CheckTabMode(mode TabMode) error {
	all := []TabMode{TabsOff, TabsOverlay, TabsReload, TabsRedirect, TabsEvent}
	if mode == "" || slices.Contains(all, mode) {
		return nil
	}
	return fmt.Errorf("%q is unknown; want one of %q", web.Clip(string(mode)), all)
}

// tabMode returns the mode of the route, or else that of the handler. It returns "" if pages do not get the script,
// whatever the mode: nobody is signed in, or this host has no /auth/.
func (h *Handler) tabMode(r *http.Request, to *route, v requestState) TabMode {
	mode := cmp.Or(to.Tabs, h.Tabs, TabsOff)
	noRoutes := h.Site.SharedCookie && !h.here(r).Main
	if mode == TabsOff || v.session == nil || noRoutes {
		return ""
	}
	return mode
}

// opensPage reports whether a browser opens a page in a tab or frame.
func opensPage(r *http.Request) bool {
	dest := r.Header.Get("Sec-Fetch-Dest")
	return dest == "document" || dest == "iframe" || dest == "frame"
}

// addTabScript puts the script into an answer of the app, if it is a page that can have it. The body is passed on as it
// comes; only its beginning is looked at. added: the page has it, or would have it if this were no HEAD.
func (h *Handler) addTabScript(resp *http.Response, v requestState) (added bool) {
	if v.tabs == "" {
		return false
	}
	// Otherwise a cache could show as the page what came for a fetch, or the reverse (RFC 9110 §12.5.5). A 304 replaces
	// the Vary of the answer that it is about (§15.4.5).
	if isHTML(resp.Header) || resp.StatusCode == http.StatusNotModified {
		addVary(resp.Header, "Sec-Fetch-Dest")
	}
	r := v.request
	if !opensPage(r) || !isPage(resp) {
		return false
	}
	nonce, fault := h.allowsScript(resp.Header["Content-Security-Policy"], r)
	if c := resp.Header.Get("Content-Encoding"); c != "" && !strings.EqualFold(c, "identity") {
		fault = "the app compresses its answers (" + c + ") even for a client that does not want that"
	}
	if fault != "" {
		if _, logged := h.untold.LoadOrStore(r.Host+" "+fault, true); !logged {
			h.Site.Event(r, slog.LevelWarn, "tab_script_left_out", slog.String("host", r.Host),
				slog.String("error", fault))
		}
		return false
	}
	// These describe another body (RFC 9110 §7.7).
	for _, name := range [...]string{"Content-Length", "Etag", "Last-Modified", "Accept-Ranges", "Content-Md5",
		"Digest", "Content-Digest", "Repr-Digest"} {
		resp.Header.Del(name)
	}
	resp.ContentLength = -1
	if r.Method == http.MethodHead {
		return true
	}
	esc := template.HTMLEscapeString
	tag := `<script async src="` + esc(h.Site.Path("tab.js")) + `" data-session="` + v.session.Key.Handle() +
		`" data-mode="` + string(v.tabs) + `"`
	if nonce != "" {
		tag += ` nonce="` + esc(nonce) + `"`
	}
	resp.Body = &injector{ReadCloser: resp.Body, tag: tag + "></script>"}
	return true
}

// isPage reports whether an answer is a whole page whose bytes can be added to.
func isPage(resp *http.Response) bool {
	header := resp.Header
	if resp.StatusCode != http.StatusOK || !isHTML(header) || header.Get("Content-Range") != "" {
		return false
	}
	if kind, _, _ := strings.Cut(header.Get("Content-Disposition"), ";"); kind != "" &&
		!strings.EqualFold(strings.TrimSpace(kind), "inline") {
		return false // a download
	}
	for _, d := range splitList(strings.Join(header["Cache-Control"], ",")) {
		if strings.EqualFold(d, "no-transform") { // RFC 9111 §5.2.2.6
			return false
		}
	}
	charset := strings.ToLower(header.Get("Content-Type"))
	for _, other := range [...]string{"utf-16", "utf-32", "utf-7", "ucs-2", "iso-2022", "ebcdic"} {
		if strings.Contains(charset, other) { // ASCII is something else there
			return false
		}
	}
	return true
}

func isHTML(header http.Header) bool {
	kind, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/html")
}

// injector is the body of a page with the tag put in where its head begins.
type injector struct {
	io.ReadCloser
	tag  string
	held []byte // the beginning, while it is not known where the tag goes; then what is still to be read
	done bool
	err  error
}

// maxHeld is how much of a page may come before its head. A page with more is left as it is.
const maxHeld = 16 << 10

func (j *injector) Read(p []byte) (int, error) {
	for !j.done && len(p) > 0 {
		if cap(j.held)-len(j.held) < 1024 {
			j.held = slices.Grow(j.held, 4096)
		}
		var n int
		n, j.err = j.ReadCloser.Read(j.held[len(j.held):cap(j.held)])
		j.held = j.held[:len(j.held)+n]
		at, found := headOf(j.held, j.err == io.EOF)
		if found = found && at <= maxHeld; found {
			j.held = slices.Insert(j.held, at, []byte(j.tag)...)
		}
		j.done = found || j.err != nil || len(j.held) > maxHeld
	}
	if len(j.held) > 0 {
		n := copy(p, j.held)
		j.held = j.held[n:]
		return n, nil
	}
	if j.err != nil {
		return 0, j.err
	}
	return j.ReadCloser.Read(p)
}

// headOf finds where a tag can be put to become the first element of the head of a page: after the doctype, so that the
// page is not shown in quirks mode. begin is the beginning of the page, or all of it.
func headOf(begin []byte, all bool) (at int, found bool) {
	if bytes.HasPrefix(begin, []byte{0xFE, 0xFF}) || bytes.HasPrefix(begin, []byte{0xFF, 0xFE}) {
		return 0, false // UTF-16
	}
	z := html.NewTokenizer(bytes.NewReader(begin))
	for {
		kind := z.Next()
		raw := z.Raw()
		if kind == html.ErrorToken || at+len(raw) == len(begin) && !all {
			return 0, false // it may go on
		}
		name := ""
		if kind == html.StartTagToken {
			tag, _ := z.TagName()
			name = string(tag)
		}
		switch {
		case name == "head":
			return at + len(raw), true
		case kind == html.DoctypeToken || kind == html.CommentToken || name == "html":
		case kind == html.TextToken && len(bytes.Trim(raw, "\uFEFF \t\r\n\f")) == 0:
		default:
			return at, true
		}
		at += len(raw)
	}
}

// allowsScript reads the Content-Security-Policy of a page (CSP Level 3). It returns the nonce that the tag of the
// script needs, if any, or what in the policy forbids the script or its event stream.
func (h *Handler) allowsScript(policies []string, r *http.Request) (nonce, fault string) {
	self, err := url.Parse(h.here(r).Origin)
	if err != nil {
		return "", "the origin of the page is no URL"
	}
	script, events := h.Site.Path("tab.js"), h.Site.Path("events")
	var nonces []string // that all policies which need one allow
	for policy := range strings.SplitSeq(strings.Join(policies, ","), ",") {
		directives := map[string][]string{}
		for d := range strings.SplitSeq(policy, ";") {
			words := strings.Fields(d)
			if len(words) == 0 {
				continue
			}
			if name := strings.ToLower(words[0]); directives[name] == nil { // the first one counts
				directives[name] = words[:len(words):len(words)]
			}
		}
		if sandbox := directives["sandbox"]; sandbox != nil && !containsFold(sandbox, "allow-scripts") {
			return "", "the Content-Security-Policy of the app has sandbox without allow-scripts"
		}
		forbidden := "the Content-Security-Policy of the app does not allow %s: add 'self' to %s"
		connect := firstOf(directives, "connect-src", "default-src")
		if connect != nil && !allowsURL(connect, events, self) {
			return "", fmt.Sprintf(forbidden, events, connect[0])
		}
		sources := firstOf(directives, "script-src-elem", "script-src", "default-src")
		if sources == nil || !containsFold(sources, "'strict-dynamic'") && allowsURL(sources, script, self) {
			continue
		}
		var here []string
		for _, source := range sources[1:] {
			if len(source) > 8 && strings.EqualFold(source[:7], "'nonce-") && strings.HasSuffix(source, "'") {
				here = append(here, source[7:len(source)-1])
			}
		}
		if nonces != nil {
			here = slices.DeleteFunc(here, func(n string) bool { return !slices.Contains(nonces, n) })
		}
		if nonces = here; len(nonces) == 0 {
			return "", fmt.Sprintf(forbidden, script, sources[0])
		}
	}
	if len(nonces) > 0 {
		nonce = nonces[0]
	}
	return nonce, ""
}

func firstOf(directives map[string][]string, names ...string) []string {
	for _, name := range names {
		if d := directives[name]; d != nil {
			return d
		}
	}
	return nil
}

func containsFold(list []string, want string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, want) })
}

// allowsURL reports whether a directive allows a path of this site (CSP §6.7.2.8). An entry that is not understood
// allows nothing.
func allowsURL(directive []string, to string, self *url.URL) bool {
	return slices.ContainsFunc(directive[1:], func(source string) bool {
		source = strings.ToLower(source)
		if source == "'self'" || source == "*" {
			return true
		}
		scheme, rest, ok := strings.Cut(source, "://")
		if !ok {
			if name, found := strings.CutSuffix(source, ":"); found {
				return name == self.Scheme || name == "http" && self.Scheme == "https"
			}
			scheme, rest = self.Scheme, source
		}
		if scheme != self.Scheme && (scheme != "http" || self.Scheme != "https") {
			return false
		}
		host, path, hasPath := strings.Cut(rest, "/")
		if path = "/" + path; hasPath && path != "/" && path != to &&
			(!strings.HasSuffix(path, "/") || !strings.HasPrefix(to, path)) {
			return false
		}
		name, port, _ := strings.Cut(host, ":")
		if port != self.Port() && port != "*" && (port != "443" || self.Port() != "" || self.Scheme != "https") {
			return false
		}
		below, wild := strings.CutPrefix(name, "*.")
		return name == self.Hostname() || wild && strings.HasSuffix(self.Hostname(), "."+below)
	})
}
