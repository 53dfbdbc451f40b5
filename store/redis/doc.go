// Package redis keeps sessions in Redis or Valkey.
package redis
