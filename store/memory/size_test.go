package memory_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// Not parallel, so that nobody else takes memory meanwhile.
func TestASessionTakesLessThanTwoKilobytesBesideItsPayload(t *testing.T) {
	const sessions, most = 20_000, 2 << 10
	inUse := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	now := time.Now()
	before := inUse()
	backend := memory.New()
	for i := range sessions {
		subject := fmt.Sprintf("248289761001-%d", i)
		bearer := session.NewBearer("https://id.example", "app", subject)
		r := store.Record{Key: bearer.Key(), Issuer: "https://id.example", ClientID: "app", Subject: subject,
			SID: fmt.Sprintf("08a5019c-17e1-4977-8f42-65a12843ea02-%d", i), Expires: now.Add(time.Hour),
			IdleExpires: now.Add(time.Hour)}
		if err := backend.Create(t.Context(), r, now, now); err != nil {
			t.Fatal(err)
		}
	}
	each := (inUse() - before) / sessions
	t.Logf("%d bytes for a session", each)
	if each > most {
		t.Errorf("a session takes %d bytes, want at most %d", each, most)
	}
	runtime.KeepAlive(backend)
}
