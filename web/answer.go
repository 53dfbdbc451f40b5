package web

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

const (
	maxQuery  = 32 << 10         // bytes: a return path of MaxReturnTo with each byte escaped, and the rest
	maxBody   = 64 << 10         // bytes of a form
	bodyTime  = 10 * time.Second // to receive the whole body
	retryWait = 5 * time.Second
)

// OurFault is what a client is told of an error that nobody expected.
const OurFault = "Something went wrong on our side. It has been logged."

// HandlerFunc answers a request, or returns why it could not: a [Failure] (see [Fail]), or any other error, which is
// logged and answered 500 without details.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Failure says what a refused client is told and what is logged.
type Failure struct {
	Status  int
	Message Message       // what the client is told; programs see only its Text, in English
	Err     error         // what is logged; nil: nothing beyond the Message
	Event   string        // the log event; default "request_refused"; from 500 on "request_failed" or "client_gone"
	Attrs   []slog.Attr   // further log attributes
	Warn    bool          // an operator must act on it: logged at WARN or above
	Retry   time.Duration // sets Retry-After; a 503 always has it, default 5 s
}

// Fail returns a [Failure]: the client gets status and say, and err is logged.
func Fail(status int, say string, err error) error {
	return &Failure{Status: status, Message: Message{Text: say}, Err: err}
}

// Error returns the text for the log.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Message.String()
	}
	return f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Page returns a handler that answers people: failures become an HTML page, with a link to the first page if they have
// no actions of their own. If methods are given, no others are allowed.
func (s *Site) Page(h HandlerFunc, methods ...string) http.Handler {
	return s.adapt(h, methods, func(w http.ResponseWriter, r *http.Request, f *Failure) {
		m := f.Message
		same := r.RequestURI == s.First() && (r.Method == http.MethodGet || r.Method == http.MethodHead)
		if len(m.Actions) == 0 && !same && f.Event != "host_refused" { // that host has no pages of ours
			m.Actions = []Action{{Label: "Go to the first page", Href: s.First()}}
		}
		s.Render(w, r, f.Status, m)
	})
}

// JSON returns a handler that answers programs: failures become `{"error": …, "error_description": …}`, where error
// is the text of the status.
func (s *Site) JSON(h HandlerFunc, methods ...string) http.Handler {
	return s.adapt(h, methods, func(w http.ResponseWriter, _ *http.Request, f *Failure) {
		word := strings.ReplaceAll(strings.ToLower(http.StatusText(f.Status)), " ", "_")
		WriteJSON(w, f.Status, fault{cmp.Or(word, "error"), f.Message.String()})
	})
}

// Protocol returns a handler that answers providers: failures become the body of Back-Channel Logout §2.8 (and of
// OAuth 2.0, RFC 6749 §5.2).
func (s *Site) Protocol(h HandlerFunc, methods ...string) http.Handler {
	return s.adapt(h, methods, func(w http.ResponseWriter, _ *http.Request, f *Failure) {
		word := "invalid_request"
		switch {
		case f.Status == http.StatusServiceUnavailable:
			word = "temporarily_unavailable"
		case f.Status >= 500:
			word = "server_error"
		}
		WriteJSON(w, f.Status, fault{word, f.Message.String()})
	})
}

// NotFound returns a handler that answers 404, with the headers of all answers.
func (s *Site) NotFound() http.Handler {
	return s.Page(func(http.ResponseWriter, *http.Request) error {
		return Fail(http.StatusNotFound, "There is nothing at this address.", nil)
	})
}

type fault struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// WriteJSON writes v as the complete response. It panics if v cannot be encoded.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("web: a response that cannot be encoded as JSON: %w", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// adapt returns a handler that runs h with the headers and limits of all answers, and passes failures to say.
func (s *Site) adapt(h HandlerFunc, methods []string,
	say func(http.ResponseWriter, *http.Request, *Failure),
) http.Handler {
	return http.HandlerFunc(func(under http.ResponseWriter, r *http.Request) {
		w := &responseWriter{ResponseWriter: under}
		r = s.Identify(r)
		nameTrace(r)
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Content-Security-Policy", noPage)
		header.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		header.Set("X-Request-Id", RequestID(r.Context()))

		late := limitBody(w, r, bodyTime)
		err := s.run(h, methods, w, r)
		if late() && !w.wrote {
			err = Fail(http.StatusRequestTimeout, "The body of the request did not come in time.", nil)
			header.Set("Connection", "close")
		}
		if err == nil {
			return
		}
		f := s.failureOf(r, err)
		if w.wrote { // the response has begun
			return
		}
		header.Del("Content-Type")
		header.Del("Content-Length")
		if f.Retry > 0 || f.Status == http.StatusServiceUnavailable {
			wait := max(1, math.Ceil(cmp.Or(f.Retry, retryWait).Seconds()))
			header.Set("Retry-After", strconv.Itoa(int(wait)))
		}
		say(w, r, f)
	})
}

// limitBody sets a deadline for receiving the body of a request, including the part that net/http discards after an
// answer. late reports whether the deadline passed. A body that arrived in time leaves no deadline: the answer may take
// as long as it needs. Where the server does not support deadlines, the size of the body is limited all the same.
func limitBody(w http.ResponseWriter, r *http.Request, within time.Duration) (late func() bool) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return func() bool { return false }
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(within))
	b := &timedBody{ReadCloser: r.Body, done: func() { _ = control.SetReadDeadline(time.Time{}) }}
	r.Body = b
	return b.late.Load
}

type timedBody struct {
	io.ReadCloser
	done func()
	late atomic.Bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.done()
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.late.Store(true)
	}
	return n, err
}

// run calls h; a panic in it becomes an error.
func (s *Site) run(h HandlerFunc, methods []string, w *responseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if r.Method == http.MethodHead && slices.Contains(methods, http.MethodGet) &&
		!slices.Contains(methods, http.MethodHead) {
		return nil // 200 without running h: a HEAD must not start or end anything
	}
	if len(methods) > 0 && !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return &Failure{Status: http.StatusMethodNotAllowed, Message: Message{
			Text: "This address takes only {methods}.", Args: map[string]string{"methods": strings.Join(methods, ", ")}}}
	}
	if len(r.URL.RawQuery) > maxQuery {
		return Fail(http.StatusRequestURITooLong, "The address is too long.", nil)
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	return h(w, r)
}

// Gone reports whether a request failed because its client has left.
func Gone(r *http.Request, err error) bool {
	return errors.Is(err, context.Canceled) && r.Context().Err() != nil
}

// failureOf turns any error into a failure, and logs it.
func (s *Site) failureOf(r *http.Request, err error) *Failure {
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		f = &Failure{Status: http.StatusInternalServerError, Err: err,
			Message: Message{Text: OurFault}}
	}
	level, event := slog.LevelInfo, "request_refused"
	switch {
	case f.Event == "" && f.Status >= 500 && Gone(r, f):
		event = "client_gone" // nobody reads the answer, and nobody has to act
	case f.Warn && f.Status < 500:
		level = slog.LevelWarn
	case f.Status == http.StatusServiceUnavailable:
		level, event = slog.LevelWarn, "request_failed"
	case f.Status >= 500:
		level, event = slog.LevelError, "request_failed"
	}
	attrs := append([]slog.Attr{slog.Int("status", f.Status)}, f.Attrs...)
	if f.Err != nil {
		attrs = append(attrs, slog.String("error", f.Err.Error()))
	} else {
		attrs = append(attrs, slog.String("said", f.Message.String()))
	}
	s.Event(r, level, cmp.Or(f.Event, event), attrs...)
	return f
}

// Event logs a decision under a stable event name, with the request's ID, method, path and client. Long values are cut.
// Characters that are invisible or change the direction of text are escaped as in Go: \n, \u202e.
func (s *Site) Event(r *http.Request, level slog.Level, name string, attrs ...slog.Attr) {
	if s.OnEvent != nil {
		s.OnEvent(r, name, attrs)
	}
	log := cmp.Or(s.Log, slog.Default())
	if !log.Enabled(r.Context(), level) {
		return
	}
	all := make([]slog.Attr, 0, len(attrs)+5)
	all = append(all, slog.String("event", name), slog.String("request_id", RequestID(r.Context())),
		slog.String("method", escapeHidden(Clip(r.Method), "")),
		slog.String("path", escapeHidden(Clip(r.URL.Path), "")))
	if a := s.ClientAddr(r); a.IsValid() {
		all = append(all, slog.String("client", a.String()))
	}
	for _, a := range attrs {
		if _, ok := a.Value.Any().(Detail); ok {
			continue
		}
		if a.Value.Kind() == slog.KindString {
			most, keep := maxLogged, ""
			if a.Key == "error" {
				most, keep = 16*maxLogged, "\n\t" // it may be a stack trace
			}
			a.Value = slog.StringValue(escapeHidden(clip(a.Value.String(), most), keep))
		}
		all = append(all, a)
	}
	log.LogAttrs(r.Context(), level, name, all...)
}

// Detail is the value of an attribute of [Site.Event] that is for [Site.OnEvent] alone, and not logged.
type Detail map[string]any

const maxLogged = 256 // maximum bytes of a value in the log

// Clip cuts text from a client to a length that fits into a log line, and to valid UTF-8.
func Clip(text string) string { return clip(text, maxLogged) }

// Printable returns a text from a stranger as one that can be logged and shown: cut, and with characters that are
// invisible or change the direction of text escaped as in Go.
func Printable(text string) string { return escapeHidden(Clip(text), "") }

func clip(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// escapeHidden escapes unprintable characters, except those in keep. A log handler may write them unescaped.
func escapeHidden(text, keep string) string {
	hidden := func(c rune) bool { return !unicode.IsPrint(c) && !strings.ContainsRune(keep, c) }
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, c := range text {
		if hidden(c) {
			quoted := strconv.QuoteRuneToASCII(c)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

type requestID struct{}

// Identify gives a request its ID (see [RequestID]): the one that it has, the one from a trusted proxy, or a new one.
func (s *Site) Identify(r *http.Request) *http.Request {
	if RequestID(r.Context()) != "" {
		return r
	}
	id := rand.Text()
	if given := r.Header.Get("X-Request-Id"); s.trusted(parseAddr(r.RemoteAddr)) && plainID(given) {
		id = given
	}
	return r.WithContext(context.WithValue(r.Context(), requestID{}, id))
}

// RequestID returns the ID under which a request is logged, or "" outside the handlers of this package.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestID{}).(string)
	return id
}

func plainID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.", c))
	})
}

// responseWriter records whether a response has begun.
type responseWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *responseWriter) WriteHeader(status int) {
	w.wrote = w.wrote || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
