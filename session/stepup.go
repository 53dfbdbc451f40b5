package session

import (
	"encoding/json"
	"time"
)

// stepUpSkew is how far the clocks of the provider and of this machine may differ.
const stepUpSkew = time.Minute

// StepUp says how a person has to have signed in at the provider for a page that asks for more than a session. What is
// empty is not asked for.
type StepUp struct {
	ACR    []string      // `acr` of the ID Token is one of these (Core §2)
	AMR    []string      // `amr` has one of these (Core §2, RFC 8176)
	MaxAge time.Duration // `auth_time` is no longer ago than this (Core §2)
}

// Missing returns the claim by which the sign-in of a session does not meet d: "acr", "amr", "auth_time", or "" if it
// does. A claim that the ID Token does not have meets nothing.
func (d *StepUp) Missing(claims map[string]any, now time.Time) string {
	switch {
	case d == nil:
	case len(d.ACR) > 0 && !MeetsText(claims, "acr", d.ACR):
		return "acr"
	case len(d.AMR) > 0 && !MeetsText(claims, "amr", d.AMR):
		return "amr"
	case d.MaxAge > 0:
		at, ok := authTime(claims)
		if !ok || now.Sub(at) > d.MaxAge+stepUpSkew || at.Sub(now) > stepUpSkew {
			return "auth_time"
		}
	}
	return ""
}

func authTime(claims map[string]any) (time.Time, bool) {
	var seconds float64
	switch v := claims["auth_time"].(type) {
	case json.Number:
		seconds, _ = v.Float64()
	case float64:
		seconds = v
	}
	if seconds <= 0 || seconds > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}
