package audit

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

const (
	sealed = "audit event v1" // the purpose under which events are sealed

	waitingMost = 10_000                 // events that wait to be written
	flushEvery  = 100 * time.Millisecond // between two writes to the journal
	writeTime   = 5 * time.Second        // for one write, and for what waits at the end
	forgetEvery = time.Hour              // between two looks for events that are too old
)

// Config is the configuration of a [Log].
type Config struct {
	Journal store.Journal    // keeps the newest events for all replicas; nil: none are kept
	Keyring *keyring.Keyring // seals them
	// Writer gets every event as a line of JSON; nil: none. One call is made at a time. If it does not return for 5 s,
	// events are lost to it alone.
	Writer  io.Writer
	Keep    time.Duration // how long events stay in the journal; 0: as long as there is room
	Replica string        // the name of this process
	Now     func() time.Time
	Log     *slog.Logger
}

// Log is the record. Its methods may be called concurrently.
type Log struct {
	cfg     Config
	waiting chan item
	dropped atomic.Int64
	written atomic.Int64
	writing atomic.Bool // Config.Writer has not returned yet

	mu     sync.Mutex
	limits map[string]*limit // by type and whether it is a refusal
}

// item is an event that waits, or with done a request of Flush.
type item struct {
	Event
	done chan<- struct{}
}

// New returns a log. Call [Log.Run] next.
func New(cfg Config) *Log {
	return &Log{cfg: cfg, waiting: make(chan item, waitingMost), limits: make(map[string]*limit)}
}

// Record adds an event. It never blocks: if too many wait to be written, the event is dropped and counted.
func (l *Log) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = l.cfg.Now()
	}
	e.Time, e.Replica = e.Time.UTC().Truncate(time.Microsecond), l.cfg.Replica
	e.cut()
	select {
	case l.waiting <- item{Event: e}:
	default:
		l.dropped.Add(1)
	}
}

// Flush waits until the events that were recorded before it are written, or have failed.
func (l *Log) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case l.waiting <- item{done: done}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Counts returns how many events were written and how many were lost: dropped because too many were waiting, or because
// they could not be written. What the limits of the journal leave out is not lost where there is a Writer.
func (l *Log) Counts() (written, lost int64) { return l.written.Load(), l.dropped.Load() }

// Run writes events until ctx is done, and then those that wait, for 5 s at most.
func (l *Log) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { l.forgetOld(ctx) })
	failed := false
	report := func(err error) {
		if err != nil && !failed {
			l.cfg.Log.WarnContext(ctx, "events are missing from the audit record: they could not be written",
				"event", "audit_failed", "error", err)
		}
		failed = err != nil
	}
	for {
		var first item
		select {
		case first = <-l.waiting:
		case <-ctx.Done():
		}
		if ctx.Err() != nil { // also where both were ready
			report(l.writeLast(ctx, first))
			return
		}
		batch := l.batch(first)
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
		err := l.write(writing, batch)
		cancel()
		report(err)
		wait.Sleep(ctx, flushEvery)
	}
}

// writeLast writes first and the events that wait, for 5 s at most. first may be the zero item.
func (l *Log) writeLast(ctx context.Context, first item) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	if first.done != nil || first.Type != "" {
		err = l.write(ctx, l.batch(first))
	}
	for ctx.Err() == nil {
		select {
		case e := <-l.waiting:
			err = errors.Join(err, l.write(ctx, l.batch(e)))
		default:
			return err
		}
	}
	return errors.Join(err, ctx.Err())
}

// batch returns first and the events that wait, as many as are written at a time.
func (l *Log) batch(first item) []item {
	batch := []item{first}
	for len(batch) < store.JournalBatch {
		select {
		case e := <-l.waiting:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// write writes events to the writer, and those within the limits to the journal.
func (l *Log) write(ctx context.Context, items []item) error {
	batch := make([]Event, 0, len(items))
	for _, it := range items {
		if it.done != nil {
			defer close(it.done)
		} else {
			batch = append(batch, it.Event)
		}
	}
	var faults []error
	lined := l.writeLines(batch)
	var entries [][]byte
	for i := range batch {
		e := batch[i]
		if !l.allowed(&e) {
			continue
		}
		plain, err := json.Marshal(e)
		if len(plain) > store.MaxJournalEntry/2 { // of claims; the limits of oidc prevent it
			e.Claims = nil
			plain, err = json.Marshal(e)
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		entries = append(entries, l.cfg.Keyring.Seal(sealed, nil, plain))
	}
	if len(entries) > 0 && l.cfg.Journal != nil {
		if err := l.cfg.Journal.Append(ctx, entries, store.Time(l.cfg.Now())); err != nil {
			faults = append(faults, err)
		}
	}
	if err := lined(); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		l.dropped.Add(int64(len(batch)))
	} else {
		l.written.Add(int64(len(batch)))
	}
	return errors.Join(faults...)
}

var errStuck = errors.New("the writer of the audit record does not return: its file may be on a disk that is away")

// writeLines begins to write events to the writer, and returns a function that waits for that, for 5 s at most. While
// the writer has not returned from an earlier write, events are lost to it, and to nothing else.
func (l *Log) writeLines(batch []Event) (finish func() error) {
	if l.cfg.Writer == nil || len(batch) == 0 {
		return func() error { return nil }
	}
	if !l.writing.CompareAndSwap(false, true) {
		return func() error { return errStuck }
	}
	var lines []byte
	for i := range batch {
		lines = append(lines, line(&batch[i])...)
	}
	written := make(chan error, 1)
	go func() {
		_, err := l.cfg.Writer.Write(lines)
		l.writing.Store(false)
		written <- err
	}()
	late := time.NewTimer(writeTime)
	return func() error {
		defer late.Stop()
		select {
		case err := <-written:
			return err
		case <-late.C:
			return errStuck
		}
	}
}

// limit is a token bucket.
type limit struct {
	left       float64
	at         time.Time
	suppressed int
}

// allowed reports whether an event may be written to the journal. Anybody can send requests that are refused, and one
// operator can end a million sessions; neither may push everything else out of the journal.
func (l *Log) allowed(e *Event) bool {
	burst, rate, name := 0.0, 0.0, string(e.Type)
	switch {
	case e.refused():
		burst, rate, name = 30, 0.1, name+"/"+e.Result
	case e.Type == SessionEnded:
		burst, rate = 1000, 20
	default:
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.limits[name]
	if b == nil {
		b = &limit{left: burst, at: e.Time}
		l.limits[name] = b
	}
	if passed := e.Time.Sub(b.at); passed > 0 {
		b.left, b.at = min(burst, b.left+rate*passed.Seconds()), e.Time
	}
	if b.left < 1 {
		b.suppressed++
		return false
	}
	b.left--
	e.Suppressed, b.suppressed = b.suppressed, 0
	return true
}

// forgetOld removes events that are older than [Config.Keep].
func (l *Log) forgetOld(ctx context.Context) {
	if l.cfg.Keep <= 0 || l.cfg.Journal == nil {
		return
	}
	for {
		_, err := l.cfg.Journal.Forget(ctx, nil, store.Time(l.cfg.Now().Add(-l.cfg.Keep)))
		if err != nil && ctx.Err() == nil {
			l.cfg.Log.WarnContext(ctx, "events that are too old could not be removed from the audit record",
				"event", "audit_not_forgotten", "error", err)
		}
		if !wait.Sleep(ctx, forgetEvery) {
			return
		}
	}
}

// Query asks for events of the journal; an empty field does not restrict. After and Before are positions, as in
// [store.JournalQuery].
type Query struct {
	After, Before int64
	Limit         int // 1 to 1,000; 0 means 100
	Match         func(*Event) bool
}

// Page is a part of the events of the journal.
type Page struct {
	Events []Event // the newest first, unless After was set
	// Next is what to ask with next: the After, or the Before, of the next page. With After it is never 0. With Before it
	// is 0 on the last page.
	Next int64
}

// Events returns events of all replicas. Those that no key of the keyring opens are left out.
func (l *Log) Events(ctx context.Context, q Query) (Page, error) {
	page := Page{Next: q.After}
	if l.cfg.Journal == nil {
		return page, nil
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	ask := store.JournalQuery{After: q.After, Before: q.Before, Limit: 1000}
	if q.Match == nil {
		ask.Limit = q.Limit
	}
	for {
		entries, err := l.cfg.Journal.Entries(ctx, ask)
		if err != nil {
			return Page{}, err
		}
		for _, entry := range entries {
			if len(page.Events) == q.Limit {
				return page, nil
			}
			page.Next = entry.Position
			if e, ok := l.open(entry); ok && (q.Match == nil || q.Match(&e)) {
				page.Events = append(page.Events, e)
			}
		}
		switch {
		case len(entries) < ask.Limit && q.After == 0:
			page.Next = 0
			return page, nil
		case len(entries) < ask.Limit || len(page.Events) == q.Limit:
			return page, nil
		case q.After > 0:
			ask.After = page.Next
		default:
			ask.Before = page.Next
		}
	}
}

func (l *Log) open(entry store.JournalEntry) (e Event, ok bool) {
	plain, err := l.cfg.Keyring.Open(sealed, nil, entry.Entry)
	if err != nil || json.Unmarshal(plain, &e) != nil {
		return e, false
	}
	e.Position = entry.Position
	return e, true
}

// Forget removes the events that match from the journal, and returns how many. A file that was written is not changed.
func (l *Log) Forget(ctx context.Context, match func(*Event) bool) (int, error) {
	var positions []int64
	for before := int64(0); ; {
		page, err := l.Events(ctx, Query{Before: before, Limit: 1000, Match: match})
		if err != nil {
			return 0, err
		}
		for _, e := range page.Events {
			positions = append(positions, e.Position)
		}
		if before = page.Next; before == 0 {
			break
		}
	}
	if len(positions) == 0 {
		return 0, nil
	}
	return l.cfg.Journal.Forget(ctx, positions, time.Time{})
}
