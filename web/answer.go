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
	maxQuery  = 32 << 10         // a return path of MaxReturnTo, each byte escaped, and the rest
	maxBody   = 64 << 10         // of every form that we read
	bodyTime  = 10 * time.Second // for all of it
	retryWait = 5 * time.Second
)

// HandlerFunc answers a request, or returns why it could not: a [Failure] (see [Fail]), or anything else, which the
// caller hears nothing about.
type HandlerFunc func(w http.ResponseWriter, r *http.Request) error

// Failure is a refusal: what the caller hears, and what we log.
type Failure struct {
	Status  int
	Message Message       // what the caller hears; programs hear its Text alone
	Err     error         // what we log; nil when there is no more to say
	Event   string        // the event that is logged; default "request_refused", or "request_failed" from 500 on
	Attrs   []slog.Attr   // what else is logged
	Warn    bool          // somebody must act on it: it is logged at WARN at least
	Retry   time.Duration // sets Retry-After; a 503 has it in any case, default 5 s
}

// Fail returns a [Failure]: the caller hears status and say, the log hears err.
func Fail(status int, say string, err error) error {
	return &Failure{Status: status, Message: Message{Text: say}, Err: err}
}

// Error is for the log.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Message.Text
	}
	return f.Err.Error()
}

func (f *Failure) Unwrap() error { return f.Err }

// Page answers a person: failures become a page. Of methods, if there are any, no other is let through.
func (s *Site) Page(h HandlerFunc, methods ...string) http.Handler {
	return s.adapt(h, methods, func(w http.ResponseWriter, r *http.Request, f *Failure) {
		s.Render(w, r, f.Status, f.Message)
	})
}

// JSON answers a program: failures become `{"error": …, "error_description": …}`, where error is the status in words.
func (s *Site) JSON(h HandlerFunc, methods ...string) http.Handler {
	return s.adapt(h, methods, func(w http.ResponseWriter, _ *http.Request, f *Failure) {
		word := strings.ReplaceAll(strings.ToLower(http.StatusText(f.Status)), " ", "_")
		WriteJSON(w, f.Status, fault{cmp.Or(word, "error"), f.Message.Text})
	})
}

// Protocol answers a provider, in the body of Back-Channel Logout §2.8 (and of OAuth 2.0, RFC 6749 §5.2).
func (s *Site) Protocol(h HandlerFunc, methods ...string) http.Handler {
	return s.adapt(h, methods, func(w http.ResponseWriter, _ *http.Request, f *Failure) {
		word := "invalid_request"
		switch {
		case f.Status == http.StatusServiceUnavailable:
			word = "temporarily_unavailable"
		case f.Status >= 500:
			word = "server_error"
		}
		WriteJSON(w, f.Status, fault{word, f.Message.Text})
	})
}

// NotFound answers for what is not there, with the headers that all our answers have.
func (s *Site) NotFound() http.Handler {
	return s.Page(func(http.ResponseWriter, *http.Request) error {
		return &Failure{Status: http.StatusNotFound, Message: Message{Text: "There is nothing at this address.",
			Actions: []Action{{Label: "Go to the first page", Href: "/"}}}}
	})
}

type fault struct {
	Error       string `json:"error"`
	Description string `json:"error_description,omitempty"`
}

// WriteJSON writes v as the whole answer.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("web: an answer that is no JSON: %w", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// adapt runs h with the headers and bounds that all our answers have, and hands what failed to say.
func (s *Site) adapt(h HandlerFunc, methods []string, say func(http.ResponseWriter, *http.Request,
	*Failure)) http.Handler {
	return http.HandlerFunc(func(under http.ResponseWriter, r *http.Request) {
		w := &writer{ResponseWriter: under}
		r = s.Identify(r)
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Content-Security-Policy", policy("'none'"))
		header.Set("X-Request-Id", RequestID(r.Context()))

		late := boundBody(w, r, bodyTime)
		err := s.run(h, methods, w, r)
		if late() && !w.wrote {
			err = Fail(http.StatusRequestTimeout, "The body of the request did not come in time.", nil)
			header.Set("Connection", "close")
		}
		if err == nil {
			return
		}
		f := s.failureOf(r, err)
		if w.wrote { // it is too late to say anything
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

// boundBody has the body of a request come within a time, also that which net/http reads past after an answer. It
// returns whether it came too late. What a body that has come leaves behind is no deadline: the answer may take as long
// as it likes. Where the server cannot bound it, it is bounded in size all the same.
func boundBody(w http.ResponseWriter, r *http.Request, within time.Duration) (late func() bool) {
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
func (s *Site) run(h HandlerFunc, methods []string, w *writer, r *http.Request) (err error) {
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
		return nil // 200, and nothing is begun or ended by a look
	}
	if len(methods) > 0 && !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return Fail(http.StatusMethodNotAllowed, "This address takes only "+strings.Join(methods, ", ")+".", nil)
	}
	if len(r.URL.RawQuery) > maxQuery {
		return Fail(http.StatusRequestURITooLong, "The address is too long.", nil)
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	return h(w, r)
}

// judge turns any error into a failure, and logs it.
func (s *Site) failureOf(r *http.Request, err error) *Failure {
	f, ok := errors.AsType[*Failure](err)
	if !ok {
		f = &Failure{Status: http.StatusInternalServerError, Err: err,
			Message: Message{Text: "Something went wrong on our side. It has been logged."}}
	}
	level, event := slog.LevelInfo, "request_refused"
	switch {
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
		attrs = append(attrs, slog.String("said", f.Message.Text))
	}
	s.Event(r, level, cmp.Or(f.Event, event), attrs...)
	return f
}

// Event logs one decision under a stable name, with the request's id, method, path and client. Long values are cut, and
// characters that are not seen, or that turn round the text beside them, are written as Go writes them: \n, \u202e.
func (s *Site) Event(r *http.Request, level slog.Level, name string, attrs ...slog.Attr) {
	log := cmp.Or(s.Log, slog.Default())
	if !log.Enabled(r.Context(), level) {
		return
	}
	all := make([]slog.Attr, 0, len(attrs)+5)
	all = append(all, slog.String("event", name), slog.String("request_id", RequestID(r.Context())),
		slog.String("method", visible(Clip(r.Method), "")), slog.String("path", visible(Clip(r.URL.Path), "")))
	if a := s.ClientAddr(r); a.IsValid() {
		all = append(all, slog.String("client", a.String()))
	}
	for _, a := range attrs {
		if a.Value.Kind() == slog.KindString {
			most, keep := clipped, ""
			if a.Key == "error" {
				most, keep = 16*clipped, "\n\t" // it may be a stack
			}
			a.Value = slog.StringValue(visible(clip(a.Value.String(), most), keep))
		}
		all = append(all, a)
	}
	log.LogAttrs(r.Context(), level, name, all...)
}

const clipped = 256 // bytes of a value in the log

// Clip cuts what a stranger sent to a length that fits into a log line, and to valid UTF-8.
func Clip(text string) string { return clip(text, clipped) }

func clip(text string, most int) string {
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// visible escapes what does not show as itself, save what is in keep. The handler of a log may write it as it is.
func visible(text, keep string) string {
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

// Identify gives a request its id (see [RequestID]): the one that it has, that a trusted proxy gave it, or a new one.
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

// RequestID returns the id under which this request is logged, "" outside of our handlers.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestID{}).(string)
	return id
}

func plainID(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.", c))
	})
}

// writer knows whether an answer has begun.
type writer struct {
	http.ResponseWriter
	wrote bool
}

func (w *writer) WriteHeader(status int) {
	w.wrote = w.wrote || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
