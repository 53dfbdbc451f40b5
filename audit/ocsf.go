package audit

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
)

// The classes and activities of the Open Cybersecurity Schema Framework, version 1.3.0 (schema.ocsf.io).
const (
	ocsfVersion = "1.3.0"

	categoryIAM    = 3
	authentication = 3002 // class; activities: 1 Logon, 2 Logoff

	categoryApplication = 6
	apiActivity         = 6003 // class; activities: 1 Create, 2 Read, 3 Update, 4 Delete

	informational, low, medium = 1, 2, 3 // severities
	success, failure           = 1, 2    // statuses
)

type ocsfEvent struct {
	Metadata     ocsfMetadata   `json:"metadata"`
	Time         int64          `json:"time"` // milliseconds since 1970
	CategoryUID  int            `json:"category_uid"`
	ClassUID     int            `json:"class_uid"`
	ActivityID   int            `json:"activity_id"`
	ActivityName string         `json:"activity_name"`
	TypeUID      int            `json:"type_uid"`
	SeverityID   int            `json:"severity_id"`
	StatusID     int            `json:"status_id"`
	Status       string         `json:"status,omitempty"`
	StatusCode   string         `json:"status_code,omitempty"`
	StatusDetail string         `json:"status_detail,omitempty"`
	User         *ocsfUser      `json:"user,omitempty"`
	Session      *ocsfSession   `json:"session,omitempty"`
	Actor        *ocsfActor     `json:"actor,omitempty"`
	API          *ocsfAPI       `json:"api,omitempty"`
	SrcEndpoint  *ocsfEndpoint  `json:"src_endpoint,omitempty"`
	HTTPRequest  *ocsfRequest   `json:"http_request,omitempty"`
	Device       *ocsfDevice    `json:"device,omitempty"`
	Count        int            `json:"count,omitempty"`
	Unmapped     map[string]any `json:"unmapped,omitempty"`
}

type ocsfMetadata struct {
	Version string      `json:"version"`
	Product ocsfProduct `json:"product"`
}
type ocsfProduct struct {
	Name string `json:"name"`
}
type ocsfUser struct {
	UID    string `json:"uid,omitempty"`
	Domain string `json:"domain,omitempty"`
}
type ocsfSession struct {
	UID    string `json:"uid,omitempty"`
	Issuer string `json:"issuer,omitempty"`
}
type ocsfActor struct {
	User    ocsfNamed    `json:"user"`
	Session *ocsfSession `json:"session,omitempty"`
}
type ocsfNamed struct {
	Name   string `json:"name,omitempty"` // as they said
	UID    string `json:"uid,omitempty"`  // of the session that they used
	Domain string `json:"domain,omitempty"`
}
type ocsfAPI struct {
	Operation string `json:"operation"`
}
type ocsfEndpoint struct {
	IP string `json:"ip"`
}
type ocsfRequest struct {
	UserAgent string `json:"user_agent,omitempty"`
	UID       string `json:"uid,omitempty"`
}
type ocsfDevice struct {
	Hostname string `json:"hostname"`
}

// line returns an event as a line of JSON with the names of OCSF. What has none there is under "unmapped". Characters
// that are invisible or change the direction of text are escaped.
func line(e *Event) []byte {
	o := ocsfEvent{
		Metadata: ocsfMetadata{ocsfVersion, ocsfProduct{"Curfew"}}, Time: e.Time.UnixMilli(),
		CategoryUID: categoryIAM, ClassUID: authentication, SeverityID: informational, StatusID: success,
		Status: "Success", StatusCode: e.Check, StatusDetail: e.Reason, Count: e.Count,
	}
	switch e.Type {
	case SignIn:
		o.ActivityID, o.ActivityName = 1, "Logon"
	case Operator:
		o.CategoryUID, o.ClassUID, o.SeverityID = categoryApplication, apiActivity, low
		switch verb, _, _ := strings.Cut(e.Action, "_"); verb {
		case "open", "export":
			o.ActivityID, o.ActivityName = 2, "Read"
		case "log", "retry", "rotate":
			o.ActivityID, o.ActivityName = 3, "Update"
		case "drop", "end", "forget":
			o.ActivityID, o.ActivityName = 4, "Delete"
		default:
			o.ActivityID, o.ActivityName = 99, "Other"
		}
		o.API = &ocsfAPI{e.Action}
	default:
		o.ActivityID, o.ActivityName = 2, "Logoff"
	}
	o.TypeUID = o.ClassUID*100 + o.ActivityID
	if e.Result != OK && e.Type != SessionEnded {
		o.StatusID, o.Status, o.SeverityID = failure, "Failure", medium
	}
	if e.Subject != "" {
		o.User = &ocsfUser{UID: e.Subject, Domain: e.Issuer}
	}
	if e.Session != "" {
		o.Session = &ocsfSession{e.Session, e.Issuer}
	}
	switch {
	case e.ActorProvider != "":
		o.Actor = &ocsfActor{User: ocsfNamed{UID: e.Actor, Domain: e.ActorProvider}}
		if e.ActorSession != "" {
			o.Actor.Session = &ocsfSession{UID: e.ActorSession}
		}
	case e.Actor != "":
		o.Actor = &ocsfActor{User: ocsfNamed{Name: e.Actor}}
	}
	if e.Address != "" {
		o.SrcEndpoint = &ocsfEndpoint{e.Address}
	}
	if e.UserAgent != "" || e.RequestID != "" {
		o.HTTPRequest = &ocsfRequest{e.UserAgent, e.RequestID}
	}
	if e.Replica != "" {
		o.Device = &ocsfDevice{e.Replica}
	}
	o.Unmapped = map[string]any{"type": e.Type}
	for name, v := range map[string]string{"result": e.Result, "cause": e.Cause, "provider": e.Provider, "iss": e.Issuer,
		"client_id": e.ClientID, "sid": e.SID, "jti": e.JTI} {
		if v != "" {
			o.Unmapped[name] = v
		}
	}
	if e.Claimed {
		o.Unmapped["claimed"] = true
	}
	if len(e.Claims) > 0 {
		o.Unmapped["claims"] = e.Claims
	}
	text, err := json.Marshal(o)
	if err != nil { // claims that cannot be encoded
		o.Unmapped["claims"] = nil
		text, _ = json.Marshal(o)
	}
	return append(escape(text), '\n')
}

// escape escapes the characters of a JSON text that are not printable.
func escape(text []byte) []byte {
	s := string(text)
	if !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return text
	}
	var b strings.Builder
	for _, c := range s {
		switch {
		case unicode.IsPrint(c):
			b.WriteRune(c)
		case c > 0xffff: // as two surrogates, RFC 8259 §7
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	return []byte(b.String())
}
