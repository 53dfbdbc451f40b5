package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"example.com/curfew/store"
)

const (
	// No row is affected when the jti is known and has not expired.
	insertJTISQL = `INSERT INTO jtis (issuer, client, jti, expires) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE jtis.expires <= ?5`

	insertMarkSQL = `INSERT INTO marks (issuer, client, subject, sid, at, kept_until) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET at = max(at, excluded.at), kept_until = max(kept_until, excluded.kept_until)`

	forgetJTISQL = `DELETE FROM jtis WHERE issuer = ? AND client = ? AND jti = ?`

	// Up to ?1 sessions. SQLite prepares a statement anew at each call if a parameter alone is its limit, which takes
	// longer than to carry it out: hence "?1 + 0", here and elsewhere. Payloads are returned only for sessions whose kind
	// of refresh token is a bit of ?2.
	endSQL = `DELETE FROM sessions WHERE id IN (%s) RETURNING key, subject, sid, created, idle_expires, expires, refresh,
		CASE WHEN ?2 >> refresh & 1 THEN payload ELSE x'' END`
	namedKeySQL = `SELECT id FROM sessions WHERE key = ?5 AND issuer = ?3 AND client = ?4 LIMIT ?1 + 0`
	namedSIDSQL = `SELECT id FROM sessions WHERE issuer = ?3 AND client = ?4 AND sid = ?5 AND sid <> ''
		UNION ALL SELECT session FROM former_sids WHERE issuer = ?3 AND client = ?4 AND sid = ?5 LIMIT ?1 + 0`
	namedSubjectSQL = `SELECT id FROM sessions WHERE issuer = ?3 AND client = ?4 AND subject = ?5 LIMIT ?1 + 0`
	namedBothSQL    = `SELECT id FROM sessions WHERE issuer = ?3 AND client = ?4 AND sid = ?6 AND sid <> ''
		UNION ALL SELECT session FROM former_sids WHERE issuer = ?3 AND client = ?4 AND sid = ?6
		UNION ALL SELECT id FROM sessions INDEXED BY sessions_by_newest
		WHERE issuer = ?3 AND client = ?4 AND subject = ?5 AND sid = '' LIMIT ?1 + 0`
	// All but the ?6 newest.
	spareSQL = `SELECT id FROM sessions INDEXED BY sessions_by_newest
		WHERE issuer = ?3 AND client = ?4 AND subject = ?5 ORDER BY created DESC, sid DESC, id DESC LIMIT ?1 + 0 OFFSET ?6`
	crowdedSQL = `SELECT EXISTS (SELECT 1 FROM sessions INDEXED BY sessions_by_newest
		WHERE issuer = ?1 AND client = ?2 AND subject = ?3 LIMIT 1 OFFSET ?4)`
)

func endSQLOf(named string) string { return fmt.Sprintf(endSQL, named) }

// End implements [store.Store].
func (s *Store) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	now = store.Time(now)
	if e.Spare > 0 {
		if tooMany, err := s.tooMany(ctx, e); err != nil || !tooMany {
			return nil, err
		}
	}
	return store.EndInBatches(ctx, func(ctx context.Context) ([]store.Ended, bool, error) {
		return s.endBatch(ctx, e, now)
	})
}

// tooMany reports whether a subject has more than e.Spare sessions. It is called at each sign-in, so it does not use
// the writer.
func (s *Store) tooMany(ctx context.Context, e store.Ending) (tooMany bool, err error) {
	err = s.read(ctx, "end", func(r *reader) error {
		return r.tooMany.QueryRow(e.Selector.Issuer, e.Selector.ClientID, e.Selector.Subject, e.Spare).Scan(&tooMany)
	})
	return tooMany, err
}

// endBatch carries out one batch of End.
func (s *Store) endBatch(
	ctx context.Context, e store.Ending, now time.Time,
) (ended []store.Ended, more bool, err error) {
	err = s.writeThen(ctx, "end", func() { s.hub.Publish(ended) }, func(w *writer) error {
		if err := w.recordJTI(e, now); err != nil {
			return err
		}
		if e.Spare == 0 {
			if err := w.leaveMarks(&e, now); err != nil {
				return err
			}
		}
		gone, removed, err := w.removeNamed(e, now)
		if err != nil {
			return err
		}
		for _, r := range gone {
			if !r.IsToken() || e.Spare > 0 {
				continue
			}
			if _, err := exec(w.insertMark, r.Issuer, r.ClientID, "", r.Key.MarkSID(), store.Micros(now),
				store.Micros(now.Add(e.MarkLife()))); err != nil {
				return err
			}
		}
		more = removed == store.EndBatch && e.Spare == 0
		if more && e.JTI != "" { // the last batch records it
			if _, err := exec(w.forgetJTI, e.Selector.Issuer, e.Selector.ClientID, e.JTI); err != nil {
				return err
			}
		}
		for _, n := range e.NoticesFor(gone, more, now) {
			if err := w.enqueue(n); err != nil {
				return err
			}
		}
		ended = e.Ended(gone, now)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return ended, more, nil
}

// recordJTI records the jti, or returns [store.ErrReplayed] if it is known. It comes first: after that error nothing
// has been written.
func (w *writer) recordJTI(e store.Ending, now time.Time) error {
	if e.JTI == "" {
		return nil
	}
	return oneRow(store.ErrReplayed, w.insertJTI, e.Selector.Issuer, e.Selector.ClientID, e.JTI,
		store.Micros(e.JTIExpires), store.Micros(now))
}

// leaveMarks leaves the marks that bar the logins under way that e names. A key names an existing session, so no login,
// but it may name an access token. With subject and sid there are two: one for the sid, and one for the sessions of the
// subject without a sid.
func (w *writer) leaveMarks(e *store.Ending, now time.Time) error {
	s, until := e.Selector, store.Micros(now.Add(e.MarkLife()))
	switch {
	case e.Bar:
		s.SID = s.Key.MarkSID()
	case !s.Key.IsZero():
		return nil
	}
	subjects := []string{s.Subject}
	if s.Subject != "" && s.SID != "" {
		subjects = append(subjects, "")
	}
	for _, subject := range subjects {
		if _, err := exec(w.insertMark, s.Issuer, s.ClientID, subject, s.SID, store.Micros(now), until); err != nil {
			return err
		}
	}
	return nil
}

// removeNamed removes a batch of the sessions that e names. It returns those of them that lived, and how many it
// removed.
func (w *writer) removeNamed(e store.Ending, now time.Time) (lived []store.Record, removed int, err error) {
	s, payloadsOf := e.Selector, 0
	for _, held := range []store.Refresh{store.RefreshNone, store.RefreshOnline, store.RefreshOffline} {
		if e.Revokes(held) {
			payloadsOf |= 1 << held
		}
	}
	args := []any{store.EndBatch, payloadsOf, s.Issuer, s.ClientID}
	var st *sql.Stmt
	switch {
	case !s.Key.IsZero():
		st, args = w.endKey, append(args, s.Key[:])
	case s.Subject == "":
		st, args = w.endSID, append(args, s.SID)
	case e.Spare > 0:
		st, args = w.endSpare, append(args, s.Subject, e.Spare)
	case s.SID == "":
		st, args = w.endSubject, append(args, s.Subject)
	default:
		st, args = w.endBoth, append(args, s.Subject, s.SID)
	}
	rows, err := st.Query(args...)
	gone, err := collect(rows, err, func() (store.Record, error) {
		r := store.Record{Issuer: s.Issuer, ClientID: s.ClientID}
		var key []byte
		var created, idleExpires, expires int64
		err := rows.Scan(&key, &r.Subject, &r.SID, &created, &idleExpires, &expires, &r.Refresh, &r.Payload)
		r.Created = store.FromMicros(created)
		r.IdleExpires, r.Expires = store.FromMicros(idleExpires), store.FromMicros(expires)
		return r, cmp.Or(err, setKey(&r, key))
	})
	removed = len(gone)
	return slices.DeleteFunc(gone, func(r store.Record) bool { return !r.Lives(now) }), removed, err
}
