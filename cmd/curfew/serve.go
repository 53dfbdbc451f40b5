package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/console"
	gw "example.com/curfew/gateway"
	"example.com/curfew/gateway/extauthz"
	"example.com/curfew/web"
)

const (
	drainTimeout  = 20 * time.Second
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	routeTimeout  = 30 * time.Second // for Curfew's own routes: enough for a code exchange and a userinfo request
	maxHeader     = 64 << 10
	maxStreams    = 100       // on one HTTP/2 connection
	maxUnread     = 256 << 10 // unread bytes of bodies on one HTTP/2 connection
)

func newServeCmd(p *process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Runs the gateway: a reverse proxy in front of --upstream, or, without it, the forward-auth of a proxy of
yours. What it prints at the start is what to register at the provider.

Each setting can be given in the configuration file (idle_timeout: 1h) and in the environment
(CURFEW_IDLE_TIMEOUT=1h), those below also as a flag (--idle-timeout 1h); a later one of these overrides an
earlier one.
Flags and environment describe one provider; several are a list in the file.`,
		Example: `  curfew serve --url http://127.0.0.1:4180 --issuer https://id.example.com \
    --client-id app --client-secret-file secret --upstream http://127.0.0.1:3000
  curfew serve --config curfew.yaml`,
		Args: cobra.NoArgs,
	}
	load := config.Flags(cmd.Flags(), p.environ)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		return serve(cmd.Context(), p, c)
	}
	return cmd
}

// serve runs the gateway until ctx is done or a listener fails:
//
//  1. open the store and its key file: a store that is in use, locked or damaged ends it before any request is served;
//  2. create the relying party, which makes no network requests;
//  3. open the listeners, and print the start;
//  4. at the end drain the public listener, stop the background work, close the store, and last the private listener,
//     which answers /healthz until then.
func serve(ctx context.Context, p *process, c *config.Config) (err error) {
	log, level := newLog(p.stderr, c)
	backend, ring, err := openStore(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()

	names := make([]string, len(c.Providers))
	for i, p := range c.Providers {
		names[i] = cmp.Or(p.Name, "main")
	}
	apps := make([]string, len(c.Apps))
	for i, a := range c.Apps {
		apps[i] = a.ClientID
	}
	registry, observer := newMetrics(names, apps)
	record, err := openAudit(c.AuditFile, p.stdout)
	if err != nil {
		return err
	}
	settings := c.RelyingParty(backend, ring, log, observer)
	tracer, stopTracing, err := newTracer(ctx, c.Traces, p.environ, log)
	if err != nil {
		return exit{2, err}
	}
	defer func() { err = errors.Join(err, stopTracing()) }()
	settings.Tracer = tracer
	if record != nil {
		defer func() { err = errors.Join(err, record.Close()) }()
		settings.AuditWriter = record
	}
	rp, err := curfew.New(context.WithoutCancel(ctx), settings)
	if err != nil {
		return exit{2, err}
	}
	defer func() { err = errors.Join(rp.Close(), err) }()

	most, err := maxConnections(c)
	if err != nil {
		return exit{2, err}
	}
	rp.Gateway().MaxOpen = most - most/8 // leaves room for sign-ins and logouts however busy the apps are
	router, err := c.Router(rp)
	if err != nil {
		return exit{2, config.OneLine(err)}
	}
	public, err := listenPublic(ctx, c.Listen, p.environ)
	if err != nil {
		return err
	}
	draining := make(chan struct{})
	ready := &console.Readiness{Ask: rp.Ready, Draining: draining, Warnings: rp.Warnings, Log: log}
	if router != nil {
		ready.Upstreams = router.Health
	}
	private := rp.Console()
	private.Ready, private.Metrics, private.Hosts = ready, registry, append(c.AdminHosts, c.AdminListen)
	registry.MustRegister(newOutboxCollector(backend, names, apps), newAuditCollector(rp.Audit()),
		newSessionCollector(rp.Sessions().Stats))
	private.Level = level
	if c.Pprof {
		private.Debug = profiles()
	}
	servers := []*server{newServer(newLimitListener(public, "public", most, log),
		newHTTPServer(publicHandler(c, rp, router, log, most), log))}
	servers[0].drain = rp.Gateway().Drain
	if c.TLSCert != "" {
		cert, err := newCertificate(c.TLSCert, c.TLSKey, log)
		if err != nil {
			return errors.Join(fmt.Errorf("--tls-cert-file: %w", err), public.Close())
		}
		servers[0].http.TLSConfig = cert.config()
	}
	if c.AdminListen != "" {
		l, err := listen(ctx, "admin-listen", c.AdminListen)
		if err != nil {
			return errors.Join(err, closeListeners(servers))
		}
		s := newPrivateServer(private.Handler(), log)
		servers = append(servers, newServer(newLimitListener(l, "private", maxPrivate, log), s))
	}
	if c.GRPCListen != "" {
		l, err := listen(ctx, "grpc-listen", c.GRPCListen)
		if err != nil {
			return errors.Join(err, closeListeners(servers))
		}
		limited := newLimitListener(l, "ext_authz", maxGRPC, log)
		limited.trackReads = true
		servers = append(servers, &server{listener: limited, grpc: extauthz.NewServer(rp.Gateway())})
	}

	listeners := make([]*limitListener, len(servers))
	for i, s := range servers {
		listeners[i] = s.listener.(*limitListener)
	}
	registry.MustRegister(newStateMetrics(ready.Ready, listeners)...)
	start := p.stdout
	if c.AuditFile == "stdout" { // which then has one object a line
		start = p.stderr
	}
	printStart(start, c, rp.Registrations(), servers)
	warnAtStart(log, c, servers)
	return runServers(ctx, servers, ready, draining, log)
}

// server is a listener and its HTTP or gRPC server.
type server struct {
	listener net.Listener
	http     *http.Server
	grpc     *grpc.Server
	drain    func() // called when shutdown begins
}

func newServer(g *limitListener, s *http.Server) *server {
	s.ConnState = g.connState
	return &server{listener: g, http: s}
}

func (s *server) serve() error {
	switch {
	case s.grpc != nil:
		return s.grpc.Serve(s.listener)
	case s.http.TLSConfig != nil:
		return s.http.ServeTLS(s.listener, "", "")
	}
	return s.http.Serve(s.listener)
}

func closeListeners(servers []*server) error {
	var faults []error
	for _, s := range servers {
		faults = append(faults, s.listener.Close())
	}
	return errors.Join(faults...)
}

func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("--%s %s: another program listens there; stop it or choose another port", flag, address)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return l, nil
}

// newHTTPServer returns a server that limits how long a client can hold a connection without a request. It has no
// WriteTimeout: an app may stream for hours.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: 16 << 10,
			MaxReceiveBufferPerConnection: maxUnread, MaxReceiveBufferPerStream: maxUnread,
			SendPingTimeout: time.Minute, WriteByteTimeout: web.WriteTime,
		},
		ErrorLog: serverLog(log),
	}
}

// newPrivateServer also limits the time of a whole request and its response.
func newPrivateServer(h http.Handler, log *slog.Logger) *http.Server {
	s := newHTTPServer(h, log)
	s.ReadTimeout, s.WriteTimeout = routeTimeout, 2*routeTimeout
	return s
}

// runServers serves until ctx is done or a listener fails, and then drains.
func runServers(ctx context.Context, servers []*server, ready *console.Readiness, draining chan struct{},
	log *slog.Logger,
) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before anything says that this runs
	defer signal.Stop(hangup)
	failed := make(chan error, len(servers))
	var running sync.WaitGroup
	for _, s := range servers {
		running.Go(func() {
			if err := s.serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	background, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { ready.Watch(background) })
	running.Go(func() { refuseReload(background, hangup, log) })

	var err error
	select {
	case <-ctx.Done():
		log.Info("stopping: no new connections, those under way are finished",
			"event", "stopping", "at_most", drainTimeout.String())
	case err = <-failed:
	}
	stop()
	close(draining)
	for _, s := range servers {
		err = errors.Join(err, s.shutdown(log))
	}
	running.Wait()
	if err == nil {
		log.Info("stopped", "event", "stopped")
	}
	return err
}

// shutdown waits for the current requests, for drainTimeout at most.
func (s *server) shutdown(log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if s.grpc != nil {
		defer context.AfterFunc(ctx, s.grpc.Stop)()
		s.grpc.GracefulStop()
		return nil
	}
	var drained sync.WaitGroup
	if s.drain != nil {
		drained.Go(s.drain)
	}
	err := s.http.Shutdown(ctx)
	drained.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("some requests took too long and were cut", "event", "drain_timeout")
		return s.http.Close()
	}
	return err
}

// refuseReload prevents SIGHUP, with which other servers reload, from ending the process.
func refuseReload(ctx context.Context, hangup <-chan os.Signal, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			log.Warn("SIGHUP: reloading is not supported yet; restart to change the configuration", "event",
				"reload_refused")
		}
	}
}

// publicHandler passes Curfew's own routes to rp, and everything else to the app. It does not clean paths as a ServeMux
// would: the app decides what `//` means.
func publicHandler(c *config.Config, rp *curfew.RP, router *gw.Router, log *slog.Logger, most int) http.Handler {
	own := limitTime(rp.Handler(), c.Prefix)
	// More requests than connections are possible only over HTTP/2.
	logouts, others := limitRequests(most, own), limitRequests(most, own)
	var rest http.Handler
	if router != nil {
		rest = router
	} else {
		site := rp.Gateway().Site
		rest = site.Page(func(http.ResponseWriter, *http.Request) error {
			return &web.Failure{Status: http.StatusNotFound, Message: web.Message{
				Text: "This gateway has no app behind it. It answers the proxy in front of your app (forward-auth, at " +
					"{path}); to put it in front of the app itself, start it with --upstream.",
				Args: map[string]string{"path": site.Path("verify")}}}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == c.Prefix+"/backchannel-logout":
			logouts.ServeHTTP(w, r)
		case r.URL.Path == c.Prefix || strings.HasPrefix(r.URL.Path, c.Prefix+"/"):
			others.ServeHTTP(w, r)
		default:
			rest.ServeHTTP(w, r)
		}
	})
}

// limitRequests answers 503 while h handles most requests. The response has no body, which the client might not read.
func limitRequests(most int, h http.Handler) http.Handler {
	var open atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer open.Add(-1)
		if open.Add(1) > int64(most) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// limitTime limits how long Curfew's own routes below prefix may take, so that a client cannot hold one by sending a
// form byte by byte. The event stream lasts until the browser disconnects or [gw.Handler.Drain] ends it. For checks
// there is no timer here: the store and the providers bound what they are asked, as for a proxied request, and a check
// is the most frequent request of all.
func limitTime(h http.Handler, prefix string) http.Handler {
	stream, verify := prefix+"/events", prefix+"/verify"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == stream {
			h.ServeHTTP(w, r)
			return
		}
		if r.ContentLength != 0 { // there is a body
			// Not every ResponseWriter supports this; then the size of the body is limited all the same.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(routeTimeout))
		}
		if r.URL.Path != verify {
			ctx, cancel := context.WithTimeout(r.Context(), routeTimeout)
			defer cancel()
			r = r.WithContext(ctx)
		}
		h.ServeHTTP(w, r)
	})
}
