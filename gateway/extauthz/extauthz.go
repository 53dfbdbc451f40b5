package extauthz

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/span"
)

const (
	maxMessage   = 1 << 20          // bytes of one check request: the headers of a request, without the body
	maxHeader    = 64 << 10         // bytes of the HTTP/2 headers of a check request
	maxStreams   = 1000             // check requests at a time on one connection
	maxUnread    = 256 << 10        // unread bytes on one connection
	checkTimeout = 10 * time.Second // to receive and answer a check request
	idleTimeout  = 2 * time.Minute  // without a check request, after which the connection is closed
)

// NewServer returns a gRPC server that answers Envoy's external authorization requests. A client that reaches it can
// ask about any request, but learns nothing about a user without their cookie. Use a private listener all the same.
func NewServer(h *gateway.Handler) *grpc.Server {
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(64<<10),
		grpc.StaticConnWindowSize(maxUnread),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.InTapHandle(withDeadline),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTimeout, Time: time.Minute, Timeout: 20 * time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
	)
	auth.RegisterAuthorizationServer(s, &server{gateway: h})
	return s
}

// withDeadline limits the time of one check request, including the time to receive it.
func withDeadline(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	context.AfterFunc(ctx, cancel) // the end of the request calls it too
	return ctx, nil
}

type server struct {
	auth.UnimplementedAuthorizationServer
	gateway *gateway.Handler
}

// Check decides about one request. An invalid request is refused.
func (s *server) Check(ctx context.Context, in *auth.CheckRequest) (*auth.CheckResponse, error) {
	// The trace of the proxy is in the metadata of its question. One among the headers is what its client sent.
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = span.Extract(ctx, http.Header{"Traceparent": md.Get("traceparent"), "Tracestate": md.Get("tracestate")})
	}
	r, err := request(ctx, in.GetAttributes())
	if err != nil {
		return denied(http.StatusBadRequest, http.Header{}, ""), nil
	}
	var a gateway.Answer
	if app, named := in.GetAttributes().GetContextExtensions()["app"]; named { // set per route in Envoy
		a = s.gateway.DecideFor(r, app)
	} else {
		a = s.gateway.Decide(r)
	}
	if !a.Allowed {
		return denied(a.Status, a.Header, string(a.Body)), nil
	}
	ok := &auth.OkHttpResponse{Headers: options(a.Header)}
	for _, name := range a.Remove {
		ok.HeadersToRemove = append(ok.HeadersToRemove, strings.ToLower(name))
	}
	return &auth.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

// request returns the request that Envoy asks about, as Envoy received it.
func request(ctx context.Context, a *auth.AttributeContext) (*http.Request, error) {
	from := a.GetRequest().GetHttp()
	u, err := url.ParseRequestURI(from.GetPath())
	if err != nil {
		return nil, err
	}
	r := (&http.Request{Method: from.GetMethod(), URL: u, RequestURI: from.GetPath(), Host: from.GetHost(),
		Header: http.Header{}}).WithContext(ctx)
	add := func(name, value string) {
		if !strings.HasPrefix(name, ":") {
			name = http.CanonicalHeaderKey(name)
			r.Header[name] = append(r.Header[name], value)
		}
	}
	for name, value := range from.GetHeaders() {
		add(name, value)
	}
	for _, h := range from.GetHeaderMap().GetHeaders() { // if Envoy is configured to send raw headers
		value := h.GetValue()
		if raw := h.GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		add(h.GetKey(), value)
	}
	if peer := a.GetSource().GetAddress().GetSocketAddress(); peer != nil {
		r.RemoteAddr = net.JoinHostPort(peer.GetAddress(), strconv.Itoa(int(peer.GetPortValue())))
	}
	return r, nil
}

// options returns headers that replace existing ones. A text of gRPC is UTF-8, and a cookie of the app need not be. All
// other values are ours.
func options(h http.Header) []*core.HeaderValueOption {
	all := make([]*core.HeaderValueOption, 0, len(h))
	for name, values := range h {
		for i, v := range values {
			if name == "Cookie" {
				v = strings.ToValidUTF8(v, "?")
			}
			action := core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			if i > 0 {
				action = core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			}
			all = append(all, &core.HeaderValueOption{Header: &core.HeaderValue{Key: strings.ToLower(name), Value: v},
				AppendAction: action})
		}
	}
	return all
}

func denied(code int, h http.Header, body string) *auth.CheckResponse {
	h.Del("Content-Length")
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(code)}, Headers: options(h), Body: body,
		}},
	}
}
