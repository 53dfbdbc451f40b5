package observed

import (
	"context"
	"time"

	"example.com/curfew/store"
)

// Begin is called before each call of the store, with the name of the operation, one of [Operations]. The call runs
// with the context that it returns, and done is called after it with its error.
type Begin func(ctx context.Context, operation string) (_ context.Context, done func(error))

// New returns a store that does what s does, and tells begin of each call.
func New(s store.Store, begin Begin) store.Store { return &observed{s, begin} }

// Operations returns the names of the operations.
func Operations() []string {
	return []string{
		"create", "admit", "find", "update", "rename", "end", "list", "overdue", "prune", "claim", "complete",
		"enqueue", "notices", "retry", "drop", "stats", "load", "save", "claim_attempt",
		"complete_attempt", "attempt", "append", "entries", "forget", "watch", "sync",
	}
}

type observed struct {
	store.Store // for Clock and Close
	begin       Begin
}

func (o *observed) Create(ctx context.Context, r store.Record, began, now time.Time) (err error) {
	ctx, done := o.begin(ctx, "create")
	err = o.Store.Create(ctx, r, began, now)
	done(err)
	return err
}

func (o *observed) Admit(ctx context.Context, r store.Record, issued, now time.Time) (err error) {
	ctx, done := o.begin(ctx, "admit")
	err = o.Store.Admit(ctx, r, issued, now)
	done(err)
	return err
}

func (o *observed) Find(ctx context.Context, key store.Key, now time.Time) (v store.Record, err error) {
	ctx, done := o.begin(ctx, "find")
	v, err = o.Store.Find(ctx, key, now)
	done(err)
	return v, err
}

func (o *observed) Update(ctx context.Context, r store.Record, now time.Time) (err error) {
	ctx, done := o.begin(ctx, "update")
	err = o.Store.Update(ctx, r, now)
	done(err)
	return err
}

func (o *observed) Rename(ctx context.Context, r store.Record, began, now time.Time) (err error) {
	ctx, done := o.begin(ctx, "rename")
	err = o.Store.Rename(ctx, r, began, now)
	done(err)
	return err
}

func (o *observed) End(ctx context.Context, e store.Ending, now time.Time) (v []store.Ended, err error) {
	ctx, done := o.begin(ctx, "end")
	v, err = o.Store.End(ctx, e, now)
	done(err)
	return v, err
}

func (o *observed) List(ctx context.Context, q store.Query, now time.Time) (v store.Page, err error) {
	ctx, done := o.begin(ctx, "list")
	v, err = o.Store.List(ctx, q, now)
	done(err)
	return v, err
}

func (o *observed) Overdue(ctx context.Context, after store.Key, limit int, now time.Time,
) (v []store.Record, err error) {
	ctx, done := o.begin(ctx, "overdue")
	v, err = o.Store.Overdue(ctx, after, limit, now)
	done(err)
	return v, err
}

func (o *observed) Prune(ctx context.Context, now time.Time) (v int, err error) {
	ctx, done := o.begin(ctx, "prune")
	v, err = o.Store.Prune(ctx, now)
	done(err)
	return v, err
}

func (o *observed) Claim(ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration,
	limit int,
) (v []store.Notice, err error) {
	ctx, done := o.begin(ctx, "claim")
	v, err = o.Store.Claim(ctx, kind, target, now, lease, limit)
	done(err)
	return v, err
}

func (s *observed) Complete(ctx context.Context, n store.Notice, o store.Outcome) (err error) {
	ctx, done := s.begin(ctx, "complete")
	err = s.Store.Complete(ctx, n, o)
	done(err)
	return err
}

func (o *observed) Enqueue(ctx context.Context, notices []store.Notice) (err error) {
	ctx, done := o.begin(ctx, "enqueue")
	err = o.Store.Enqueue(ctx, notices)
	done(err)
	return err
}

func (o *observed) Notices(ctx context.Context, q store.NoticeQuery) (v store.NoticePage, err error) {
	ctx, done := o.begin(ctx, "notices")
	v, err = o.Store.Notices(ctx, q)
	done(err)
	return v, err
}

func (o *observed) Retry(ctx context.Context, id string, due, deadline time.Time) (err error) {
	ctx, done := o.begin(ctx, "retry")
	err = o.Store.Retry(ctx, id, due, deadline)
	done(err)
	return err
}

func (o *observed) Drop(ctx context.Context, id string) (err error) {
	ctx, done := o.begin(ctx, "drop")
	err = o.Store.Drop(ctx, id)
	done(err)
	return err
}

func (o *observed) Stats(ctx context.Context) (v []store.NoticeStats, err error) {
	ctx, done := o.begin(ctx, "stats")
	v, err = o.Store.Stats(ctx)
	done(err)
	return v, err
}

func (o *observed) Load(ctx context.Context, name string) (v []byte, revision int64, err error) {
	ctx, done := o.begin(ctx, "load")
	v, revision, err = o.Store.Load(ctx, name)
	done(err)
	return v, revision, err
}

func (o *observed) Save(ctx context.Context, name string, value []byte, revision int64) (err error) {
	ctx, done := o.begin(ctx, "save")
	err = o.Store.Save(ctx, name, value, revision)
	done(err)
	return err
}

func (o *observed) ClaimAttempt(ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time,
) (v []byte, err error) {
	ctx, done := o.begin(ctx, "claim_attempt")
	v, err = o.Store.ClaimAttempt(ctx, id, value, expires, now)
	done(err)
	return v, err
}

func (o *observed) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte, now time.Time) (err error) {
	ctx, done := o.begin(ctx, "complete_attempt")
	err = o.Store.CompleteAttempt(ctx, id, value, now)
	done(err)
	return err
}

func (o *observed) Attempt(ctx context.Context, id store.AttemptID, now time.Time) (v []byte, err error) {
	ctx, done := o.begin(ctx, "attempt")
	v, err = o.Store.Attempt(ctx, id, now)
	done(err)
	return v, err
}

func (o *observed) Append(ctx context.Context, entries [][]byte, now time.Time) (err error) {
	ctx, done := o.begin(ctx, "append")
	err = o.Store.Append(ctx, entries, now)
	done(err)
	return err
}

func (o *observed) Entries(ctx context.Context, q store.JournalQuery) (v []store.JournalEntry, err error) {
	ctx, done := o.begin(ctx, "entries")
	v, err = o.Store.Entries(ctx, q)
	done(err)
	return v, err
}

func (o *observed) Forget(ctx context.Context, positions []int64, before time.Time) (v int, err error) {
	ctx, done := o.begin(ctx, "forget")
	v, err = o.Store.Forget(ctx, positions, before)
	done(err)
	return v, err
}

// Watch is one call. Each Sync of the feed is another, named "sync".
func (o *observed) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	_, done := o.begin(ctx, "watch") // the feed lives on
	feed, err := o.Store.Watch(ctx, fn)
	done(err)
	if err != nil {
		return nil, err
	}
	return &observedFeed{feed, o.begin}, nil
}

type observedFeed struct {
	store.Feed
	begin Begin
}

func (f *observedFeed) Sync(ctx context.Context) error {
	ctx, done := f.begin(ctx, "sync")
	err := f.Feed.Sync(ctx)
	done(err)
	return err
}
