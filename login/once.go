package login

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"example.com/curfew/internal/guard"
	"example.com/curfew/internal/wait"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	outcomePurpose = "login outcome v1"

	// exchangeTime bounds the requests to the provider and the store for one attempt, and how long a second callback
	// waits for the first.
	exchangeTime = 30 * time.Second
	saveTime     = 5 * time.Second // to store the outcome

	pollFirst = 50 * time.Millisecond // before the first check whether another replica is done; doubled each time
	pollMost  = time.Second
)

// outcome is the outcome of an attempt. It is sealed in the store until the attempt expires. While Done is false a
// replica is working on it.
type outcome struct {
	Code []byte    `json:"c"` // hash of the code that was, or is being, exchanged
	At   time.Time `json:"t"` // when that began
	Done bool      `json:"d,omitempty"`

	Bearer  string      `json:"b,omitempty"` // of the session; empty: refused
	Status  int         `json:"s,omitempty"`
	Message web.Message `json:"m,omitzero"`
	Why     string      `json:"w,omitempty"` // for the log

	err      error        // the refusal itself, in the process that made it
	answered *atomic.Bool // a request has been answered with it; nil: it was read from the store
}

// exchangeOnce exchanges the code of an attempt. Every further callback with the same attempt and code gets the same
// outcome, on any replica: a proxy may repeat a request, and a person may click twice. Another code for the attempt is
// refused without a request to the provider.
//
// The exchange goes on after the request that began it has gone, since its code is used up. An error means that there
// is no outcome; with errNotBegun the code has not been used.
func (h *Handler) exchangeOnce(r *http.Request, p *oidc.Provider, a *attempt, code string) (*outcome, error) {
	sum := sha256.Sum256([]byte(code))
	detached := r.Clone(context.WithoutCancel(r.Context()))
	exchange := h.exchanges.DoChan(h.log(), "a sign-in", string(sum[:])+a.State, func() (any, error) {
		ctx, cancel := context.WithTimeout(detached.Context(), exchangeTime)
		defer cancel()
		return h.claim(detached.WithContext(ctx), p, a, code, sum[:16])
	})
	select {
	case <-r.Context().Done():
		return nil, &web.Failure{Status: http.StatusRequestTimeout, Event: "login", Err: r.Context().Err(),
			Attrs: []slog.Attr{slog.String("result", "gone"), slog.String("provider", p.Name())}}
	case result := <-exchange:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*outcome), nil
	}
}

// errNotBegun means that the store did not say whether the code was exchanged before, so it was not exchanged now.
var errNotBegun = errors.New("the sign-in was not begun")

// claim exchanges the code, unless a replica has done so or is doing so: then it waits for the outcome.
func (h *Handler) claim(r *http.Request, p *oidc.Provider, a *attempt, code string, sum []byte) (*outcome, error) {
	o := &outcome{Code: sum, At: h.Sessions.Now(), answered: new(atomic.Bool)}
	claimed, err := h.seal(a, o)
	if err != nil {
		return nil, err
	}
	held, err := h.Sessions.ClaimAttempt(r.Context(), a.id(), claimed, store.AttemptLifetime)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotBegun, err)
	}
	if held != nil {
		return h.await(r, p, a, held, sum)
	}
	h.exchange(r, p, a, code, o)
	done, err := h.seal(a, o)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), saveTime)
		defer cancel()
		err = h.Sessions.CompleteAttempt(ctx, a.id(), done)
	}
	if err != nil { // this process knows the outcome all the same
		h.Site.Event(r, slog.LevelWarn, "login_outcome_not_kept", slog.String("provider", p.Name()),
			slog.String("error", err.Error()))
	}
	return o, nil
}

// exchange exchanges the code and sets the outcome. A panic is an outcome too: the code is used up.
func (h *Handler) exchange(r *http.Request, p *oidc.Provider, a *attempt, code string, o *outcome) {
	bearer, err := func() (b session.Bearer, err error) {
		defer guard.Recover(h.log(), "a sign-in", &err)
		return h.finish(r, p, a, code)
	}()
	if o.Done = true; err == nil {
		o.Bearer = bearer.Reveal()
		return
	}
	o.err, o.Why, o.Status = err, web.Clip(err.Error()), http.StatusInternalServerError
	if f, ok := errors.AsType[*web.Failure](err); ok {
		o.Status, o.Message = f.Status, f.Message
	}
}

// await waits for the outcome of an attempt that was claimed before. held is the outcome in the store.
func (h *Handler) await(r *http.Request, p *oidc.Provider, a *attempt, held, sum []byte) (*outcome, error) {
	id := a.id()
	for pause := pollFirst; ; pause = min(2*pause, pollMost) {
		plain, err := h.Keyring.Open(outcomePurpose, a.context(), held)
		if err != nil {
			return nil, err
		}
		o := new(outcome)
		if err := json.Unmarshal(plain, o); err != nil {
			return nil, err
		}
		switch {
		case !bytes.Equal(o.Code, sum):
			return nil, h.providerFailure(p, a, &oidc.Error{Check: "code",
				Err: errors.New("another code came for this login before")})
		case o.Done:
			return o, nil
		case h.Sessions.Now().Sub(o.At) >= exchangeTime || !wait.Sleep(r.Context(), pause):
			return nil, h.unfinished(p, a)
		}
		if held, err = h.Sessions.Attempt(r.Context(), id); err != nil {
			if errors.Is(err, store.ErrNotFound) || r.Context().Err() != nil {
				return nil, h.unfinished(p, a)
			}
			return nil, h.storeFailure(p, a, err)
		}
	}
}

// unfinished is the page for an attempt that a replica began and did not finish, perhaps because it crashed.
func (h *Handler) unfinished(p *oidc.Provider, a *attempt) error {
	return &web.Failure{Status: http.StatusServiceUnavailable, Event: "login",
		Err:   errors.New("another request began to exchange the code of this login, and left no outcome"),
		Attrs: []slog.Attr{slog.String("result", "unavailable"), slog.String("provider", p.Name())},
		Message: web.Message{Title: "This sign-in was interrupted",
			Text: "It was not completed. Please sign in again.", Actions: h.signInAgain(a)}}
}

// seal seals an outcome for this attempt. To open it takes the keyring and the secret in the browser's cookie.
func (h *Handler) seal(a *attempt, o *outcome) ([]byte, error) {
	plain, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return h.Keyring.Seal(outcomePurpose, a.context(), plain), nil
}

func (a *attempt) context() []byte {
	id := a.id()
	return append(id[:], a.Verifier...)
}

// respond answers the browser with the outcome of its attempt. Except for the first answer, and for one that hands the
// session over to another host, it checks that the session still exists: it may have ended since, and must not come
// back.
func (h *Handler) respond(w http.ResponseWriter, r *http.Request, p *oidc.Provider, a *attempt, o *outcome) error {
	first := o.answered != nil && o.answered.CompareAndSwap(false, true)
	if o.Bearer == "" {
		if first {
			return o.err
		}
		if o.Message.Text == "" {
			o.Message = web.Message{Text: "Something went wrong on our side. It has been logged."}
		}
		return &web.Failure{Status: o.Status, Message: o.Message, Err: errors.New("came again: " + o.Why),
			Event: "login", Attrs: []slog.Attr{slog.String("result", "repeated"), slog.String("provider", p.Name())}}
	}
	bearer, err := session.ParseBearer(o.Bearer)
	if err != nil {
		return err
	}
	var s *session.Session
	if !first || a.For != nil {
		switch s, err = h.Sessions.Peek(r.Context(), bearer.Key()); {
		case errors.Is(err, store.ErrNotFound):
			return &web.Failure{Status: http.StatusConflict, Event: "login",
				Err:   errors.New("came again after its session had ended"),
				Attrs: []slog.Attr{slog.String("result", "ended"), slog.String("provider", p.Name())},
				Message: web.Message{Title: "You were signed out",
					Text:    "This sign-in was completed, and its session has ended since.",
					Actions: h.signInAgain(a)}}
		case err != nil:
			return h.storeFailure(p, a, err)
		}
	}
	life := h.Cookie.Remember
	if s != nil {
		life = s.Expires.Sub(h.Sessions.Now())
	}
	if !first {
		h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "repeated"), slog.String("provider", p.Name()),
			slog.String("session", bearer.Key().Handle()))
	}
	h.Cookie.WriteFor(w, bearer, life)
	if a.For != nil {
		return h.handOver(w, r, a.For, s, bearer)
	}
	redirect(w, a.ReturnTo)
	return nil
}
