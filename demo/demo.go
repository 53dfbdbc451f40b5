package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Config configures the demo. The zero value of each field is useful.
type Config struct {
	Port int          // the first of four: overview, provider, Notes, Photos; 0: any four that are free
	Out  io.Writer    // receives instructions for the user; default none
	Log  *slog.Logger // one line for each decision of the gateways; default none
}

// Run serves the demo until ctx is done, and then returns nil. It fails at once if a port is in use.
func Run(ctx context.Context, cfg Config) error {
	h, err := start(ctx, cfg)
	if err != nil {
		return err
	}
	if cfg.Out != nil {
		if _, err := io.WriteString(cfg.Out, h.greeting()); err != nil {
			return errors.Join(err, h.close())
		}
	}
	<-h.ctx.Done()
	err = h.close()
	if ctx.Err() == nil { // a server has failed
		err = errors.Join(context.Cause(h.ctx), err)
	}
	return err
}

// shutdownTimeout limits how long requests may take at the end. None takes long: streams end with the context.
const shutdownTimeout = time.Second

// instance is a running demo.
type instance struct {
	ctx      context.Context // done when the demo is to end; its cause says why
	end      context.CancelCauseFunc
	log      *slog.Logger
	journal  *journal
	overview *overview
	provider *provider
	apps     []*app
	servers  []*http.Server
	running  sync.WaitGroup
}

// start opens all ports first, because the parts need each other's addresses, and then serves.
func start(ctx context.Context, cfg Config) (*instance, error) {
	h := &instance{log: cfg.Log, journal: newJournal()}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.ctx, h.end = context.WithCancelCause(ctx)
	// the last two are the apps behind their gateways
	ports := []int{cfg.Port, cfg.Port + 1, cfg.Port + 2, cfg.Port + 3, 0, 0}
	if cfg.Port == 0 {
		clear(ports)
	}
	var at []net.Listener
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			for _, l := range at {
				err = errors.Join(err, l.Close())
			}
			h.end(err)
			return nil, fmt.Errorf("demo: %w", err)
		}
		at = append(at, l)
	}
	url := func(l net.Listener) string { return "http://" + l.Addr().String() }

	h.overview = &overview{url: url(at[0]), provider: url(at[1]), journal: h.journal}
	notes := &app{id: "notes", name: "Notes", url: url(at[2]), upstream: url(at[4])}
	photos := &app{id: "photos", name: "Photos", url: url(at[3]), upstream: url(at[5])}
	h.apps = []*app{notes, photos}
	h.overview.apps = h.apps
	h.provider = newProvider(h.overview, h.apps, h.journal)
	for _, a := range h.apps {
		if err := a.start(h.ctx, h.provider, h.journal, h.log); err != nil {
			for _, l := range at {
				err = errors.Join(err, l.Close())
			}
			return nil, errors.Join(err, h.close())
		}
	}
	h.serve(at[0], onlyAt(at[0].Addr().String(), h.overview.handler()))
	h.serve(at[1], onlyAt(at[1].Addr().String(), h.provider.handler()))
	h.serve(at[2], onlyAt(at[2].Addr().String(), notes.gateway()))
	h.serve(at[3], onlyAt(at[3].Addr().String(), photos.gateway()))
	h.serve(at[4], notes.handler())
	h.serve(at[5], photos.handler())
	return h, nil
}

func (h *instance) serve(l net.Listener, handler http.Handler) {
	s := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return h.ctx },
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}
	h.servers = append(h.servers, s)
	h.running.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.end(fmt.Errorf("demo: %s: %w", l.Addr(), err))
		}
	})
}

// close stops everything and waits for it.
func (h *instance) close() error {
	h.end(nil)
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	for _, s := range h.servers {
		h.running.Go(func() {
			if s.Shutdown(ctx) != nil {
				_ = s.Close()
			}
		})
	}
	h.running.Wait()
	var faults []error
	for _, a := range h.apps {
		faults = append(faults, a.close())
	}
	return errors.Join(faults...)
}

func (h *instance) greeting() string {
	return fmt.Sprintf(`Curfew demo: a provider, two apps, and a gateway before each. All of it is on this machine.

  Open      %s

  1  In Notes, click "Sign in" and choose somebody: Alice, Bob or Carol. There are no passwords.
  2  Photos is signed in too, without another click.
  3  Click "Sign out", at the provider or in one of the apps. Both apps say so at once, and nothing is reloaded.

  Provider  %s
  Notes     %s
  Photos    %s

Ctrl-C stops it. Nothing is kept.
`, h.overview.url, h.provider.url, h.apps[0].url, h.apps[1].url)
}
