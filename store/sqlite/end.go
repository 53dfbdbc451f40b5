package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store/internal/rules"
)

const (
	// Nothing is inserted, and no row is affected, when the jti is known and has not run out.
	insertJTISQL = `INSERT INTO jtis (issuer, client, jti, expires) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT DO UPDATE SET expires = excluded.expires WHERE jtis.expires <= ?5`

	insertMarkSQL = `INSERT INTO marks (issuer, client, subject, sid, at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET at = excluded.at WHERE marks.at < excluded.at`

	endKeySQL     = `DELETE FROM sessions WHERE key = ?3 AND issuer = ?1 AND client = ?2 RETURNING ` + columns
	endSIDSQL     = `DELETE FROM sessions WHERE issuer = ?1 AND client = ?2 AND sid = ?3 AND sid <> '' RETURNING ` + columns
	endSubjectSQL = `DELETE FROM sessions WHERE issuer = ?1 AND client = ?2 AND subject = ?3 RETURNING ` + columns
	endBothSQL    = `DELETE FROM sessions WHERE issuer = ?1 AND client = ?2 AND subject = ?3 AND sid IN (?4, '')
		RETURNING ` + columns
)

// End implements [session.Store].
func (s *Store) End(ctx context.Context, e session.Ending, now time.Time) ([]session.Ended, error) {
	if err := rules.CheckEnding(e); err != nil {
		return nil, err
	}
	now = session.Time(now)
	var ended []session.Ended
	err := s.write(ctx, func(w *writer) error {
		if err := w.recordJTI(e, now); err != nil {
			return err
		}
		if err := w.leaveMark(e.Who, now); err != nil {
			return err
		}
		gone, err := w.removeNamed(e.Who, now)
		if err != nil {
			return fmt.Errorf("sqlite: end: %w", err)
		}
		for _, n := range rules.Notices(e, gone, now) {
			if err := w.leaveNotice(n); err != nil {
				return err
			}
		}
		ended = rules.Ended(e, gone, now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.hub.Publish(ended)
	return ended, nil
}

func (w *writer) recordJTI(e session.Ending, now time.Time) error {
	if e.JTI == "" {
		return nil
	}
	res, err := exec(w.insertJTI, e.Who.Issuer, e.Who.ClientID, e.JTI, micros(e.JTIExpires), micros(now))
	if err != nil {
		return fmt.Errorf("sqlite: end: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("sqlite: end: %w", err)
	}
	if n == 0 {
		return session.ErrReplayed
	}
	return nil
}

// leaveMark bars the logins under way that who names. A key names a session that exists, so no login.
func (w *writer) leaveMark(who session.Who, now time.Time) error {
	if !who.Key.IsZero() {
		return nil
	}
	if _, err := exec(w.insertMark, who.Issuer, who.ClientID, who.Subject, who.SID, micros(now)); err != nil {
		return fmt.Errorf("sqlite: end: %w", err)
	}
	return nil
}

// removeNamed removes the sessions that who names, and returns those of them that lived.
func (w *writer) removeNamed(who session.Who, now time.Time) ([]session.Record, error) {
	args := []any{who.Issuer, who.ClientID}
	var st *sql.Stmt
	switch {
	case !who.Key.IsZero():
		st, args = w.endKey, append(args, who.Key[:])
	case who.Subject == "":
		st, args = w.endSID, append(args, who.SID)
	case who.SID == "":
		st, args = w.endSubject, append(args, who.Subject)
	default:
		st, args = w.endBoth, append(args, who.Subject, who.SID)
	}
	rows, err := st.Query(args...)
	if err != nil {
		return nil, err
	}
	removed, err := readRecords(rows)
	if err != nil {
		return nil, err
	}
	lived := removed[:0]
	for _, r := range removed {
		if r.Lives(now) {
			lived = append(lived, r)
		}
	}
	return lived, nil
}

// readRecords reads all of rows, whose columns are those of columns, and closes it.
func readRecords(rows *sql.Rows) (records []session.Record, err error) {
	defer func() {
		if errClose := rows.Close(); err == nil {
			err = errClose
		}
	}()
	for rows.Next() {
		var r session.Record
		var key []byte
		var created, lastSeen, idleExpires, expires int64
		if err := rows.Scan(&key, &r.Issuer, &r.ClientID, &r.Subject, &r.SID, &created, &lastSeen, &idleExpires, &expires,
			&r.Revision, &r.Refresh, &r.Payload); err != nil {
			return nil, err
		}
		if len(key) != len(r.Key) {
			return nil, fmt.Errorf("a key of %d bytes is stored, not of %d", len(key), len(r.Key))
		}
		copy(r.Key[:], key)
		r.Created, r.LastSeen = instant(created), instant(lastSeen)
		r.IdleExpires, r.Expires = instant(idleExpires), instant(expires)
		records = append(records, r)
	}
	return records, rows.Err()
}

func instant(micros int64) time.Time { return session.Time(time.UnixMicro(micros)) }
