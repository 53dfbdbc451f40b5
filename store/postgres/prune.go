package postgres

import (
	"context"
	"time"

	"example.com/curfew/store"

	"github.com/jackc/pgx/v5/pgxpool"
)

// feedLifetime is how long what ended is kept for those who watch: longer than a replica can be out of touch and not
// notice that it lost its connection. One that was suspended for longer is told that it missed something.
const feedLifetime = store.AttemptLifetime

// Batches are small, since a logout may be waiting behind one; what others hold is passed by. Of the sessions whose
// five minutes have not passed only so many are looked at, so that those that still live cost little, however many.
const pruneSQL = `WITH
	old AS MATERIALIZED (SELECT key FROM curfew_sessions WHERE slot <= $1::bigint / 300000000 ORDER BY slot LIMIT 1000),
	over AS MATERIALIZED (SELECT s.key FROM curfew_sessions s WHERE s.key = ANY (ARRAY(SELECT key FROM old))
		AND least(s.idle_expires, s.expires) <= $1 LIMIT 100 FOR UPDATE SKIP LOCKED),
	sessions AS (DELETE FROM curfew_sessions WHERE key = ANY (ARRAY(SELECT key FROM over)) RETURNING 1),

	old_marks AS MATERIALIZED (SELECT ctid AS id FROM curfew_marks WHERE at <= $2::bigint ORDER BY at LIMIT 100
		FOR UPDATE SKIP LOCKED),
	marks AS (DELETE FROM curfew_marks WHERE ctid = ANY (ARRAY(SELECT id FROM old_marks)) AND at <= $2 RETURNING 1),

	old_jtis AS MATERIALIZED (SELECT digest FROM curfew_jtis WHERE expires <= $1 ORDER BY expires LIMIT 100
		FOR UPDATE SKIP LOCKED),
	jtis AS (DELETE FROM curfew_jtis WHERE digest = ANY (ARRAY(SELECT digest FROM old_jtis)) RETURNING 1),

	old_attempts AS MATERIALIZED (SELECT id FROM curfew_attempts WHERE expires <= $1 ORDER BY expires LIMIT 100
		FOR UPDATE SKIP LOCKED),
	attempts AS (DELETE FROM curfew_attempts WHERE id = ANY (ARRAY(SELECT id FROM old_attempts)) RETURNING 1),

	first AS MATERIALIZED (SELECT ctid AS id, at FROM curfew_ended ORDER BY xid LIMIT 500),
	old_ended AS MATERIALIZED (SELECT ctid AS id FROM curfew_ended
		WHERE ctid = ANY (ARRAY(SELECT id FROM first WHERE at <= $3::bigint)) FOR UPDATE SKIP LOCKED),
	ended AS (DELETE FROM curfew_ended WHERE ctid = ANY (ARRAY(SELECT id FROM old_ended)) RETURNING xid),
	pruned AS (UPDATE curfew_ended_pruned p SET xid = greatest(p.xid, (SELECT xid FROM ended ORDER BY xid DESC LIMIT 1))
		WHERE EXISTS (SELECT FROM ended))
SELECT (SELECT count(*) FROM sessions) + (SELECT count(*) FROM marks) + (SELECT count(*) FROM jtis)
	+ (SELECT count(*) FROM attempts), (SELECT count(*) FROM ended)`

// Prune implements [store.Store]. What it removes of curfew_ended is our own affair and not counted; so while that is
// all there was, it goes on by itself, or those who call it until it says 0 would leave the rest there.
func (s *Store) Prune(ctx context.Context, now time.Time) (n int, err error) {
	for ended := 1; n == 0 && ended > 0; {
		err := s.write(ctx, "prune", func(ctx context.Context, conn *pgxpool.Conn) error {
			rows, err := conn.Query(ctx, pruneSQL, store.Micros(now), store.Micros(now.Add(-store.MarkLifetime)),
				store.Micros(now.Add(-feedLifetime)))
			return one(rows, err, &n, &ended)
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}
