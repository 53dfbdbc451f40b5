package console

import (
	"context"
	"net/http"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/web"
)

// Keys are the keys that sign logout tokens for apps.
type Keys interface {
	List(context.Context) ([]Key, error)
	// Rotate makes a new key for each algorithm. With now the new keys sign at once, and the old ones are removed.
	Rotate(ctx context.Context, now bool) error
}

// Key describes a signing key.
type Key struct {
	ID      string    `json:"kid"`
	Alg     string    `json:"alg"`
	Created time.Time `json:"created"`
	Active  time.Time `json:"active"` // it signs from then on
	Signs   bool      `json:"signs"`  // it signs now for its algorithm
}

// KeyList is the response with all keys.
type KeyList struct {
	Keys []Key `json:"keys"`
}

func (c *Console) listKeys(ctx context.Context, _ *http.Request) (any, error) {
	if c.Keys == nil {
		return nil, errNoKeys()
	}
	all, err := c.Keys.List(ctx)
	return KeyList{all}, err
}

func (c *Console) rotateKeys(ctx context.Context, r *http.Request) (any, error) {
	if c.Keys == nil {
		return nil, errNoKeys()
	}
	err := c.Keys.Rotate(ctx, r.URL.Query().Get("now") == "true")
	c.record(r, audit.Event{Action: "rotate_keys"}, err)
	if err != nil {
		return nil, err
	}
	return c.listKeys(ctx, r)
}

func errNoKeys() error {
	return web.Fail(http.StatusNotFound,
		"there are no signing keys: no apps are configured, so nothing is signed", nil)
}
