package gateway

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"example.com/curfew/session"
)

// stepUpNeeded means that the person is signed in, and not in the way that the rule asks for.
type stepUpNeeded struct {
	demand *session.StepUp
	// request is a method and a path, as the login route takes them; empty if the sign-in leads back to the request.
	request string
}

func (stepUpNeeded) Error() string { return "a stronger or newer sign-in is needed" }

// Is has a missing step-up handled as a missing sign-in, since a sign-in is what is needed.
func (stepUpNeeded) Is(target error) bool { return target == errNotSignedIn }

// challenge returns the WWW-Authenticate header for an API client (RFC 9470 §3). There is no parameter for `amr`.
func (e stepUpNeeded) challenge() string {
	text := "A stronger or newer sign-in is required"
	if len(e.demand.AMR) > 0 {
		text += ", by one of these methods: " + strings.Join(e.demand.AMR, " ")
	}
	params := []string{`error="insufficient_user_authentication"`, `error_description="` + text + `"`}
	if len(e.demand.ACR) > 0 {
		params = append(params, `acr_values="`+strings.Join(e.demand.ACR, " ")+`"`)
	}
	if e.demand.MaxAge > 0 {
		params = append(params, `max_age="`+strconv.Itoa(int(e.demand.MaxAge.Seconds()))+`"`)
	}
	return "Bearer " + strings.Join(params, ", ")
}

// link adds to the address of a login what it is for.
func (e stepUpNeeded) link(login string) string {
	if e.request == "" {
		return login
	}
	return login + "&" + url.Values{"step_up": {e.request}}.Encode()
}

// StepUp returns how a person has to sign in for a request to a host, by the policy; nil: in any way. Package login
// calls it.
func (h *Handler) StepUp(r *http.Request, host, method, target string) *session.StepUp {
	rule, err := h.Policy.find(r, host, method, target)
	if err != nil || rule == nil {
		return nil
	}
	return rule.stepUp()
}

// stepUp returns how a person has to sign in for the rule; nil: in any way.
func (r *rule) stepUp() *session.StepUp {
	if len(r.ACR) == 0 && len(r.AMR) == 0 && r.MaxAge == 0 {
		return nil
	}
	return &session.StepUp{ACR: r.ACR, AMR: r.AMR, MaxAge: r.MaxAge}
}

// checkStepUp returns an error unless the session was signed in to as the rule asks for. A sign-in leads back to the
// target back, which differs from the one that is judged if a router in front has removed a prefix.
func (h *Handler) checkStepUp(r *rule, s *session.Session, method, target, back string) error {
	demand := r.stepUp()
	if demand.Missing(s.Claims, h.Sessions.Now()) == "" {
		return nil
	}
	e := stepUpNeeded{demand: demand}
	switch page := method == http.MethodGet || method == http.MethodHead; {
	case !page: // the sign-in leads to another page
		e.request = stepUpRequest(method, target)
	case pathAlone(target) != pathAlone(back): // the login would judge back
		e.request = stepUpRequest(http.MethodGet, target)
	}
	return e
}

// longestRequest is how long a value of step_up may be; package login refuses a longer one.
const longestRequest = 512

// stepUpRequest returns a method and a path, as the login route takes them. Of a long path it has the beginning, which
// the same rule covers.
func stepUpRequest(method, target string) string {
	path, most := pathAlone(target), longestRequest-len(method+" ")
	if most < 1 { // the sign-in is one without a step-up
		return ""
	}
	if len(path) > most {
		path = path[:most]
		for _, ok := plainPath(path); !ok; _, ok = plainPath(path) { // cut within a character
			path = path[:len(path)-1]
		}
	}
	return method + " " + path
}

// badStepUpValue reports whether a value cannot be in a list that is separated by spaces, and in a header.
func badStepUpValue(s string) bool {
	return s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}
