package console

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"example.com/curfew/web"
)

// hosts are the names that the private listener answers to, beside addresses and localhost.
type hosts []string

// only lets through requests whose Host names this machine. Otherwise a page of another site could read the answers, by
// giving its own name our address (DNS rebinding). An address always leads here, and a request without a host, as in
// HTTP/1.0, comes from no browser.
func (names hosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !names.meant(r.Host) {
			web.WriteJSON(w, http.StatusMisdirectedRequest,
				map[string]string{"error": "this listener goes by its address, " +
					"by localhost, by the host of admin_listen and by those of admin_hosts; ask it by one of these"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (names hosts) meant(host string) bool {
	host = hostName(host)
	if _, err := netip.ParseAddr(host); err == nil || host == "" || web.Loopback(host) {
		return true
	}
	for _, name := range names {
		if host == hostName(name) {
			return true
		}
	}
	return false
}

// hostName returns the host of a Host header, or of an address, as names are compared: without port, brackets and the
// dot at its end, in lower case.
func hostName(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(hostport, "[]"), "."))
}
