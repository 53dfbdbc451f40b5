package fanout

import (
	"context"
	"net"
	"net/http"
)

// Dial has the sender reach apps by dial alone, with everything else of its client as it is.
func (s *Sender) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	t := s.http.Transport.(*http.Transport)
	t.DialContext, t.Proxy = dial, nil
}
