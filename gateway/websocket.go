package gateway

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"example.com/curfew/web"
)

// opensWebSocket reports whether a request is a well-formed opening handshake of a WebSocket (RFC 6455 §4.1). Nothing
// else may ask an app for another protocol: after a 101 there is a tunnel in which no session, path or header is
// checked.
func opensWebSocket(r *http.Request) bool {
	version, key := r.Header["Sec-Websocket-Version"], r.Header["Sec-Websocket-Key"]
	upgrade := r.Header["Upgrade"]
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor != 1 ||
		r.ContentLength != 0 || len(r.TransferEncoding) > 0 ||
		len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket") ||
		len(version) != 1 || version[0] != "13" || len(key) != 1 {
		return false
	}
	nonce, err := base64.StdEncoding.Strict().DecodeString(key[0])
	if err != nil || len(nonce) != 16 || len(key[0]) != 24 {
		return false
	}
	// Connection must name Upgrade, and no header that the handshake needs.
	names := func(option string) bool { return hasToken(r.Header["Connection"], option) }
	return names("Upgrade") && !names("Sec-WebSocket-Version") && !names("Sec-WebSocket-Key")
}

// hasToken reports whether a header that is a list of tokens has one of them, in any case.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// withoutUpgrade returns the request as it is passed on: one that does not open a WebSocket must not ask for another
// protocol, and is treated as an ordinary request (RFC 9110 §7.8 lets a server ignore Upgrade).
func withoutUpgrade(r *http.Request, opens bool) *http.Request {
	drop := func(name string) bool {
		return name == "Http2-Settings" || !opens && (name == "Upgrade" || strings.HasPrefix(name, "Sec-Websocket-"))
	}
	for name := range r.Header {
		if drop(name) {
			plain := *r
			plain.Header = r.Header.Clone()
			for name := range r.Header {
				if drop(name) {
					delete(plain.Header, name)
				}
			}
			return &plain
		}
	}
	return r
}

// errProtocol means that the app changed the protocol unasked, or to another one.
var errProtocol = errors.New("the app answered 101, which does not open the WebSocket that was asked for")

// checkSwitch returns nil if a 101 response opens the WebSocket that its request asked for (RFC 6455 §4.1).
func checkSwitch(r *http.Response) error {
	upgrade, accept := r.Header["Upgrade"], r.Header["Sec-Websocket-Accept"]
	switch key := r.Request.Header["Sec-Websocket-Key"]; {
	case len(r.Request.Header["Upgrade"]) != 1 || len(key) != 1:
		return fmt.Errorf("%w: no WebSocket was asked for", errProtocol)
	case len(upgrade) != 1 || !strings.EqualFold(upgrade[0], "websocket") ||
		!hasToken(r.Header["Connection"], "Upgrade"):
		return fmt.Errorf("%w: Upgrade or Connection is not right", errProtocol)
	case len(accept) != 1 || accept[0] != acceptKey(key[0]):
		return fmt.Errorf("%w: Sec-WebSocket-Accept is not right", errProtocol)
	}
	return nil
}

// acceptKey returns the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// asksForWebSocket reports whether a request has any part of a WebSocket handshake, well-formed or not, even if a proxy
// has removed the rest.
func asksForWebSocket(h http.Header) bool {
	return hasToken(h["Upgrade"], "websocket") || len(h["Sec-Websocket-Key"]) > 0 ||
		strings.EqualFold(h.Get("Sec-Fetch-Mode"), "websocket")
}

// checkOrigin refuses a WebSocket that a page of another site opens: browsers send cookies with it, and apply no
// same-origin rule (RFC 6455 §10.2). Pages of the same host are allowed, and those in [Handler.WebSocketOrigins]; own
// is the origin of a route with its own host. Other hosts of the site are other sites here.
//
// A request without Origin does not come from a browser, which always sends it (RFC 6455 §4.1), so another site cannot
// have caused it. If Sec-Fetch-Site or Sec-Fetch-Mode shows a browser, a proxy has dropped Origin.
func (h *Handler) checkOrigin(r *http.Request, own string) error {
	if !asksForWebSocket(r.Header) {
		return nil
	}
	refuse := func(err error) error {
		return &web.Failure{Status: http.StatusForbidden, Event: "origin_refused", Err: err,
			Message: web.Message{Text: "A page of another site may not open a WebSocket here."}}
	}
	origins := r.Header["Origin"]
	switch {
	case len(origins) == 0:
		site := r.Header.Get("Sec-Fetch-Site")
		if site == "same-origin" || site == "" && r.Header.Get("Sec-Fetch-Mode") == "" {
			return nil
		}
		return refuse(errors.New("a browser opens a WebSocket, and its Origin is missing: have the proxy pass it on"))
	case len(origins) > 1:
		return refuse(errors.New("a WebSocket with several origins"))
	}
	is := func(origin string) bool { return origin != "" && strings.EqualFold(origin, origins[0]) }
	if is(h.here(r).Origin) || is(own) || slices.ContainsFunc(h.WebSocketOrigins, is) {
		return nil
	}
	return refuse(fmt.Errorf("a page of %q opens a WebSocket; it is neither this site nor among the origins that may",
		web.Clip(origins[0])))
}

// ParseOrigin parses the origin of a site for [Handler.WebSocketOrigins], and returns it as browsers send it (RFC 6454
// §6.2): in lower case, without a default port.
func ParseOrigin(raw string) (string, error) {
	u, err := url.Parse(strings.ToLower(raw))
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.Scheme+"://"+u.Host != strings.ToLower(raw) ||
		strings.ContainsAny(u.Host, "@*, ") || strings.HasSuffix(u.Host, ":") {
		return "", fmt.Errorf("%q is not an origin; write it like https://app.example.com, without a path", raw)
	}
	if port := u.Port(); u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	return u.Scheme + "://" + u.Host, nil
}
