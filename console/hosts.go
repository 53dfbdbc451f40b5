package console

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"example.com/curfew/web"
)

// hosts are the host names that the private listener accepts, beside IP addresses and localhost.
type hosts []string

// only passes on requests whose Host is one of these. Otherwise a page of another site could read the answers, by
// pointing its own name at our address (DNS rebinding). An IP address is always ours, and a request without a host, as
// in HTTP/1.0, does not come from a browser.
func (names hosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !names.accepts(r.Host) {
			web.WriteJSON(w, http.StatusMisdirectedRequest,
				map[string]string{"error": "this listener goes by its address, " +
					"by localhost, by the host of admin_listen and by those of admin_hosts; ask it by one of these"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (names hosts) accepts(host string) bool {
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

// hostName returns the host of a Host header or an address in the form that is compared: in lower case, without port,
// brackets and a dot at the end.
func hostName(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(hostport, "[]"), "."))
}
