package audit

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// Type is what an event is about.
type Type string

const (
	SignIn             Type = "sign_in"             // a sign-in that succeeded, or was refused
	BackchannelLogout  Type = "backchannel_logout"  // a logout token of a provider
	FrontchannelLogout Type = "frontchannel_logout" // a logout in a frame of a provider's page
	UserLogout         Type = "user_logout"         // a person signed out here
	SessionEnded       Type = "session_ended"       // one session ended; or, with a Count, so many
	Operator           Type = "operator"            // an operator did something
)

// Types returns all types.
func Types() []Type {
	return []Type{SignIn, BackchannelLogout, FrontchannelLogout, UserLogout, SessionEnded, Operator}
}

// OK is the Result of what succeeded.
const OK = "ok"

// Event is one entry of the record. Empty fields are not known, or do not apply. The values may be a stranger's: they
// are cut when they are recorded, and must be escaped where they are shown.
type Event struct {
	Position int64     `json:"position,omitempty"` // in the journal of the store
	Time     time.Time `json:"time"`
	Type     Type      `json:"type"`
	Result   string    `json:"result,omitempty"` // "ok", "refused", "unavailable", "replayed", …
	Check    string    `json:"check,omitempty"`  // the check that failed
	Cause    string    `json:"cause,omitempty"`  // of an ending: see store.Cause
	Reason   string    `json:"reason,omitempty"` // why it failed, in words

	Provider string `json:"provider,omitempty"` // its name in the configuration
	Issuer   string `json:"iss,omitempty"`
	ClientID string `json:"client_id,omitempty"`
	Subject  string `json:"sub,omitempty"`
	SID      string `json:"sid,omitempty"`
	Session  string `json:"session,omitempty"` // the ID of session.Session; of log lines the part after the dot
	JTI      string `json:"jti,omitempty"`
	Count    int    `json:"count,omitempty"` // how many sessions ended

	// Claimed: Issuer, Subject and SID are what a refused token says of itself. Nothing of it is verified. Claims is more
	// of the same, without what may be personal.
	Claimed bool           `json:"claimed,omitempty"`
	Claims  map[string]any `json:"claims,omitempty"`

	Address   string `json:"address,omitempty"` // of the client
	UserAgent string `json:"user_agent,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	Replica   string `json:"replica,omitempty"`

	Action string `json:"action,omitempty"` // of an operator: "end_session", …
	// Actor is who the operator is: with an ActorProvider the subject of the session that they used, and otherwise what
	// they said on the private listener, which asks nobody who they are.
	Actor         string `json:"actor,omitempty"`
	ActorProvider string `json:"actor_provider,omitempty"`
	ActorSession  string `json:"actor_session,omitempty"` // its ID
	// Suppressed is how many events of the same type and result were not written to the journal just before this one,
	// because there were too many of them.
	Suppressed int `json:"suppressed,omitempty"`
}

// UnmarshalJSON keeps the digits of the numbers in Claims.
func (e *Event) UnmarshalJSON(text []byte) error {
	type plain Event
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode((*plain)(e))
}

const (
	maxName = 1024 // bytes of a name that is compared: sub, sid, issuer
	maxText = 256  // bytes of any other value
)

// cut shortens all values.
func (e *Event) cut() {
	for _, s := range []*string{&e.Issuer, &e.ClientID, &e.Subject, &e.SID, &e.Actor} {
		*s = clip(*s, maxName)
	}
	for _, s := range []*string{&e.Result, &e.Check, &e.Cause, &e.Provider, &e.Session, &e.JTI, &e.Address, &e.UserAgent,
		&e.RequestID, &e.Replica, &e.Action, &e.ActorProvider, &e.ActorSession} {
		*s = clip(*s, maxText)
	}
	e.Reason = clip(e.Reason, 2*maxText)
}

func clip(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// Refused is the Result of what was not allowed.
const Refused = "refused"

// refused reports whether the event is one that a stranger can cause.
func (e *Event) refused() bool {
	return e.Result != OK && e.Type != SessionEnded && (e.Type != Operator || e.Result == Refused)
}
