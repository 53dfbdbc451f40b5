// Package servers starts PostgreSQL and Redis servers for tests, on loopback ports and with directories of their own,
// and stops them when the test ends. It imports no other package of this module.
//
// CURFEW_TEST_POSTGRES and CURFEW_TEST_REDIS name servers to be used instead. Then each test gets a schema, or a
// prefix, of its own there, and a test that stops its server is skipped, unless it starts one with OwnPostgres or
// OwnRedis. Where a program is missing, the test is skipped with the reason; with CI=true it fails.
package servers
