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
	"runtime/debug"
	"sync/atomic"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	outcomePurpose = "login outcome v1"

	// exchangeTime bounds all that is asked of the provider and the store for one attempt, and how long a second
	// callback waits for the first.
	exchangeTime = 30 * time.Second
	saveTime     = 5 * time.Second // to keep the outcome

	firstLook = 50 * time.Millisecond // at what another replica is doing, then at longer and longer intervals
	lastLook  = time.Second
)

// outcome is what came of an attempt. It lies in the store, sealed, until the attempt has run out. Until Done it says
// that a replica is at work.
type outcome struct {
	Code []byte    `json:"c"` // hash of the code that was, or is being, exchanged
	At   time.Time `json:"t"` // when that began
	Done bool      `json:"d,omitempty"`

	Bearer  string      `json:"b,omitempty"` // of the session; empty: refused
	Status  int         `json:"s,omitempty"`
	Message web.Message `json:"m,omitzero"`
	Why     string      `json:"w,omitempty"` // for the log

	err  error        // the refusal itself, in the process that made it
	told *atomic.Bool // whether a request has been answered with it; nil: it was read from the store
}

// once exchanges the code of an attempt, and lets every further callback with that attempt and that code have the same
// outcome: a proxy sends a request again, a person clicks twice, on whatever replica. Another code for the attempt is
// refused, without a question to the provider.
//
// The exchange goes on when the request that began it has gone: its code is used up. An error means that there is no
// outcome; errNotBegun among them that the code has not been used.
func (h *Handler) once(r *http.Request, p *oidc.Provider, a *attempt, code string) (*outcome, error) {
	sum := sha256.Sum256([]byte(code))
	detached := r.Clone(context.WithoutCancel(r.Context()))
	flight := h.flights.DoChan(string(sum[:])+a.State, func() (any, error) {
		ctx, cancel := context.WithTimeout(detached.Context(), exchangeTime)
		defer cancel()
		return h.claim(detached.WithContext(ctx), p, a, code, sum[:16])
	})
	select {
	case <-r.Context().Done():
		return nil, &web.Failure{Status: http.StatusRequestTimeout, Event: "login", Err: r.Context().Err(),
			Attrs: []slog.Attr{slog.String("result", "gone"), slog.String("provider", p.Name())}}
	case result := <-flight:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*outcome), nil
	}
}

// errNotBegun: the store did not say whether the attempt is still to be carried out, so it was not.
var errNotBegun = errors.New("the sign-in was not begun")

// claim carries out the attempt, unless some replica has done so or is at it: then it waits for the outcome.
func (h *Handler) claim(r *http.Request, p *oidc.Provider, a *attempt, code string, sum []byte) (*outcome, error) {
	o := &outcome{Code: sum, At: h.Sessions.Now(), told: new(atomic.Bool)}
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
	h.carryOut(r, p, a, code, o)
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

// carryOut exchanges the code and fills in what came of it. It runs outside of any request, so a panic ends here.
func (h *Handler) carryOut(r *http.Request, p *oidc.Provider, a *attempt, code string, o *outcome) {
	bearer, err := func() (b session.Bearer, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
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

// await waits for the outcome of an attempt that is claimed: held is what the claim says.
func (h *Handler) await(r *http.Request, p *oidc.Provider, a *attempt, held, sum []byte) (*outcome, error) {
	id := a.id()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		plain, err := h.Ring.Open(outcomePurpose, a.context(), held)
		if err != nil {
			return nil, err
		}
		o := new(outcome)
		if err := json.Unmarshal(plain, o); err != nil {
			return nil, err
		}
		switch {
		case !bytes.Equal(o.Code, sum):
			return nil, h.asked(p, a, &oidc.Error{Check: "code",
				Err: errors.New("another code was brought for this login before")})
		case o.Done:
			return o, nil
		case h.Sessions.Now().Sub(o.At) >= exchangeTime || !rest(r.Context(), pause):
			return nil, h.unfinished(p, a)
		}
		if held, err = h.Sessions.Attempt(r.Context(), id); err != nil {
			if errors.Is(err, store.ErrNotFound) || r.Context().Err() != nil {
				return nil, h.unfinished(p, a)
			}
			return nil, h.kept(p, a, err)
		}
	}
}

// rest waits, and says whether it could.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// unfinished is the page for an attempt that some replica began to carry out and did not end: it may have crashed.
func (h *Handler) unfinished(p *oidc.Provider, a *attempt) error {
	return &web.Failure{Status: http.StatusServiceUnavailable, Event: "login",
		Err:   errors.New("another request began to exchange the code of this login, and left no outcome"),
		Attrs: []slog.Attr{slog.String("result", "unavailable"), slog.String("provider", p.Name())},
		Message: web.Message{Title: "This sign-in was interrupted",
			Text: "It was not completed. Please sign in again.", Actions: h.again(a)}}
}

// seal seals an outcome for this attempt: to open it takes the ring and the secret in the browser's cookie.
func (h *Handler) seal(a *attempt, o *outcome) ([]byte, error) {
	plain, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return h.Ring.Seal(outcomePurpose, a.context(), plain), nil
}

func (a *attempt) context() []byte {
	id := a.id()
	return append(id[:], a.Verifier...)
}

// answer gives a browser what came of its attempt. All but the first look whether the session still lives: it may have
// ended since, and nothing is to bring it back.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, p *oidc.Provider, a *attempt, o *outcome) error {
	first := o.told != nil && o.told.CompareAndSwap(false, true)
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
	if !first {
		switch _, err := h.Sessions.Peek(r.Context(), bearer.Key()); {
		case errors.Is(err, store.ErrNotFound):
			return &web.Failure{Status: http.StatusConflict, Event: "login",
				Err:   errors.New("came again after its session had ended"),
				Attrs: []slog.Attr{slog.String("result", "ended"), slog.String("provider", p.Name())},
				Message: web.Message{Title: "You were signed out",
					Text: "This sign-in was completed before, and its session has ended since.", Actions: h.again(a)}}
		case err != nil:
			return h.kept(p, a, err)
		}
		h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "repeated"), slog.String("provider", p.Name()),
			slog.String("session", bearer.Key().Handle()))
	}
	h.Cookie.Write(w, bearer)
	redirect(w, a.ReturnTo)
	return nil
}
