// Package servers starts PostgreSQL and Redis for tests of several rooms, on loopback ports and with a folder of their
// own, and stops them when the test ends. It looks into nothing and knows none of our stores.
//
// CURFEW_TEST_POSTGRES and CURFEW_TEST_REDIS name servers that are used instead: then a test gets a schema, or a
// prefix, of its own there, and one that has to stop its server is skipped, or asks for one that is its own in any
// case. Where a program is missing the test is skipped aloud, and with CI=true it fails.
package servers
