package postgres

import (
	"context"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5/pgxpool"
)

// feedLifetime is how long endings are kept for the feeds of other replicas: longer than a replica can be out of touch
// without noticing that its connection is lost. The feed of a replica that was suspended for longer has a gap.
const feedLifetime = store.AttemptLifetime

// Batches are small, since a logout may be waiting behind one of them. Locked rows are skipped. A slot is five minutes,
// so the sessions of the latest slots may still live; at most 1,000 sessions are read, however many there are. A number
// that is not assigned yet is from another server, whose tables were restored here: it must not hide the later ones.
const pruneSQL = `WITH
	old AS MATERIALIZED (SELECT key FROM curfew_sessions WHERE slot <= $1::bigint / 300000000 ORDER BY slot LIMIT 1000),
	over AS MATERIALIZED (SELECT s.key FROM curfew_sessions s WHERE s.key = ANY (ARRAY(SELECT key FROM old))
		AND least(s.idle_expires, s.expires) <= $1 LIMIT 100 FOR UPDATE SKIP LOCKED),
	sessions AS (DELETE FROM curfew_sessions WHERE key = ANY (ARRAY(SELECT key FROM over)) RETURNING 1),

	old_marks AS MATERIALIZED (SELECT ctid AS id FROM curfew_marks WHERE kept_until <= $1
		ORDER BY kept_until LIMIT 100
		FOR UPDATE SKIP LOCKED),
	marks AS (DELETE FROM curfew_marks WHERE ctid = ANY (ARRAY(SELECT id FROM old_marks))
		AND kept_until <= $1 RETURNING 1),

	old_jtis AS MATERIALIZED (SELECT digest FROM curfew_jtis WHERE expires <= $1 ORDER BY expires LIMIT 100
		FOR UPDATE SKIP LOCKED),
	jtis AS (DELETE FROM curfew_jtis WHERE digest = ANY (ARRAY(SELECT digest FROM old_jtis)) RETURNING 1),

	old_attempts AS MATERIALIZED (SELECT id FROM curfew_attempts WHERE expires <= $1 ORDER BY expires LIMIT 100
		FOR UPDATE SKIP LOCKED),
	attempts AS (DELETE FROM curfew_attempts WHERE id = ANY (ARRAY(SELECT id FROM old_attempts)) RETURNING 1),

	first AS MATERIALIZED (SELECT ctid AS id, at FROM curfew_ended ORDER BY xid LIMIT 500),
	old_ended AS MATERIALIZED (SELECT ctid AS id FROM curfew_ended
		WHERE ctid = ANY (ARRAY(SELECT id FROM first WHERE at <= $2::bigint)) FOR UPDATE SKIP LOCKED),
	ended AS (DELETE FROM curfew_ended WHERE ctid = ANY (ARRAY(SELECT id FROM old_ended)) RETURNING xid),
	pruned AS (UPDATE curfew_ended_pruned p SET xid = greatest(
			CASE WHEN p.xid < pg_snapshot_xmax(pg_current_snapshot()) THEN p.xid END,
			(SELECT xid FROM ended WHERE xid < pg_snapshot_xmax(pg_current_snapshot()) ORDER BY xid DESC LIMIT 1), '0')
		WHERE EXISTS (SELECT FROM ended))
SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM marks) + (SELECT count(*) FROM jtis)
	+ (SELECT count(*) FROM attempts), (SELECT count(*) FROM ended)`

// Prune implements [store.Store]. It also removes rows of curfew_ended, which it does not count. While it finds only
// those, it goes on: a caller stops when Prune returns 0, and the rest would stay there.
func (s *Store) Prune(ctx context.Context, now time.Time) (n int, err error) {
	for ended := 1; n == 0 && ended > 0; {
		err := s.write(ctx, "prune", func(ctx context.Context, conn *pgxpool.Conn) error {
			rows, err := conn.Query(ctx, pruneSQL, store.Micros(now), store.Micros(now.Add(-feedLifetime)))
			return one(rows, err, &n, &ended)
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}
