package curfew

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	auditKeep = 30 * 24 * time.Hour // the default of [Config.AuditKeep]
	// endedEach is how many sessions of one ending are recorded one by one. The others are recorded as a number.
	endedEach = 100
)

// newAudit returns the record of what happens.
func (rp *RP) newAudit(cfg Config, now func() time.Time, log *slog.Logger) *audit.Log {
	c := audit.Config{Writer: cfg.AuditWriter, Keyring: cfg.Keyring, Journal: rp.store, Replica: rp.replica.Name,
		Keep: cmp.Or(cfg.AuditKeep, auditKeep), Now: now, Log: log}
	if cfg.AuditKeep < 0 {
		c.Journal = nil
	}
	return audit.New(c)
}

// Audit returns the record of what happened: sign-ins, logouts, endings and what operators did. A caller that ends
// sessions for an operator adds an event of type [audit.Operator] that says who did it.
func (rp *RP) Audit() *audit.Log { return rp.audit }

// recordSignIn records a session that was created.
func (rp *RP) recordSignIn(s *session.Session) {
	rp.audit.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Provider: s.Provider, Issuer: s.Issuer,
		ClientID: s.ClientID, Subject: s.Subject, SID: s.SID, Session: s.ID(), Address: s.Address, UserAgent: s.UserAgent})
}

// recordEnding records the sessions that an ending ended.
func (rp *RP) recordEnding(e store.Ending, ended []store.Ended) {
	about := audit.Event{Type: audit.SessionEnded, Result: audit.OK, Cause: string(e.Cause), Issuer: e.Selector.Issuer,
		ClientID: e.Selector.ClientID}
	if p := rp.provider(about.Issuer, about.ClientID); p != nil {
		about.Provider = p.Name()
	}
	for _, s := range ended[:min(len(ended), endedEach)] {
		one := about
		one.Subject, one.SID, one.Session = s.Subject, s.SID, session.IDOf(s.Key)
		rp.audit.Record(one)
	}
	if more := len(ended) - endedEach; more > 0 {
		about.Subject, about.SID, about.Count = e.Selector.Subject, e.Selector.SID, more
		rp.audit.Record(about)
	}
}

// recordEvent records a decision of login or logout. A sign-in that succeeded is recorded when the session is created.
func (rp *RP) recordEvent(r *http.Request, name string, attrs []slog.Attr) {
	rp.countSignIn(name, attrs)
	var e audit.Event
	decided := true
	switch name {
	case "login":
		e.Type = audit.SignIn
	case "backchannel_logout":
		e.Type = audit.BackchannelLogout
	case "frontchannel_logout":
		e.Type = audit.FrontchannelLogout
	case "user_logout":
		e.Type = audit.UserLogout
	case "console_refused": // somebody who is signed in and no operator
		e.Type, e.Action, decided = audit.Operator, "open_console", false
	case "handover": // in traces alone
	default:
		decided = false
	}
	if rp.site.Tracer != nil && decided {
		traceEvent(r, name, attrs)
	}
	if e.Type == "" {
		return
	}
	provider, subject, about := &e.Provider, &e.Subject, new(string)
	if e.Type == audit.Operator {
		provider, subject, about = &e.ActorProvider, &e.Actor, &e.ActorSession
	}
	for _, a := range attrs {
		switch a.Key {
		case "session":
			*about = a.Value.String()
		case "result":
			e.Result = a.Value.String()
		case "check":
			e.Check = a.Value.String()
		case "provider":
			*provider = a.Value.String()
		case "sub":
			*subject = a.Value.String()
		case "sid":
			e.SID = a.Value.String()
		case "jti":
			e.JTI = a.Value.String()
		case "error":
			e.Reason = a.Value.String()
		case "ended":
			e.Count = int(a.Value.Int64())
		case "claimed_iss":
			e.Issuer, e.Claimed = a.Value.String(), true
		case "claimed_sub":
			e.Subject, e.Claimed = a.Value.String(), true
		case "claimed_sid":
			e.SID, e.Claimed = a.Value.String(), true
		case "claimed_provider":
			e.Provider = a.Value.String()
		case "claims":
			if said, ok := a.Value.Any().(web.Detail); ok {
				e.Claims, e.Claimed = said, true
			}
		}
	}
	switch {
	case e.Type == audit.SignIn && e.Result == audit.OK:
		return
	case e.Result == "" || e.Result == "nobody" || e.Result == "ignored" || e.Result == "repeated" || e.Result == "gone":
		return // nothing was decided
	}
	for _, p := range rp.providers {
		if e.Issuer == "" && p.Name() == e.Provider {
			e.Issuer, e.ClientID = p.Config().Issuer, p.Config().ClientID
		}
	}
	if client := rp.site.ClientAddr(r); client.IsValid() {
		e.Address = client.String()
	}
	e.UserAgent, e.RequestID = r.UserAgent(), web.RequestID(r.Context())
	rp.audit.Record(e)
}
