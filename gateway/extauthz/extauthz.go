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
	kind "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

	"example.com/curfew/gateway"
)

const (
	maxMessage = 1 << 20          // bytes of one question: the headers of a request, and no body
	maxHeader  = 64 << 10         // bytes of what goes before a question
	maxStreams = 1000             // questions at a time on one connection
	maxUnread  = 256 << 10        // bytes on one connection that have not been read yet
	askTime    = 10 * time.Second // for a question to come and be answered
	idleTime   = 2 * time.Minute  // without a question, and the connection is closed
)

// NewServer returns a gRPC server that answers Envoy. Who can reach it can ask about any request, and learns nothing
// about a person without the cookie; it belongs on a private listener all the same.
func NewServer(h *gateway.Handler) *grpc.Server {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams), grpc.StaticStreamWindowSize(64<<10),
		grpc.StaticConnWindowSize(maxUnread),
		grpc.ConnectionTimeout(10*time.Second), grpc.InTapHandle(soon), grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTime, Time: time.Minute, Timeout: 20 * time.Second,
		}), grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second,
			PermitWithoutStream: true}))
	auth.RegisterAuthorizationServer(s, &server{gateway: h})
	return s
}

// soon bounds the time of one question, also while its bytes are still to come.
func soon(ctx context.Context, _ *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	context.AfterFunc(ctx, cancel) // which the end of the question does too
	return ctx, nil
}

type server struct {
	auth.UnimplementedAuthorizationServer
	gateway *gateway.Handler
}

// Check decides about one request. Whatever cannot be understood is refused.
func (s *server) Check(ctx context.Context, in *auth.CheckRequest) (*auth.CheckResponse, error) {
	r, err := request(ctx, in.GetAttributes())
	if err != nil {
		return denied(http.StatusBadRequest, http.Header{}, ""), nil
	}
	var a gateway.Answer
	if app, named := in.GetAttributes().GetContextExtensions()["app"]; named { // by the route that the request takes
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

// request is the request that Envoy holds, as it received it.
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
	for _, h := range from.GetHeaderMap().GetHeaders() { // where Envoy is told to send them as they are
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

// options sets headers over whatever is there.
func options(h http.Header) []*core.HeaderValueOption {
	all := make([]*core.HeaderValueOption, 0, len(h))
	for name, values := range h {
		for i, v := range values {
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
			Status: &kind.HttpStatus{Code: kind.StatusCode(code)}, Headers: options(h), Body: body,
		}},
	}
}
