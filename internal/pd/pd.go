// SPDX-License-Identifier: Apache-2.0

// Package pd asks PD, the placement driver of a TiKV cluster, for the cluster's stores.
package pd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Client asks one PD, which may be several endpoints. It is safe for concurrent use.
type Client struct{ servers *httpclient.Servers }

// New returns a client for cfg. The error says which credential or certificate can't be used.
func New(cfg config.PD) (*Client, error) {
	servers, err := httpclient.New("pd", cfg.Server)
	if err != nil {
		return nil, err
	}
	return &Client{servers}, nil
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.servers.Close() }

// storesAnswer is PD's answer to GET /pd/api/v1/stores, as far as it is of use. Fields are left out where they are zero.
type storesAnswer struct {
	Stores []struct {
		Store struct {
			ID            uint64 `json:"id"`
			Address       string `json:"address"`
			StatusAddress string `json:"status_address"`
			StateName     string `json:"state_name"`
			Labels        []struct {
				Key   string `json:"key"`
				Value string `json:"value"`
			} `json:"labels"`
		} `json:"store"`
	} `json:"stores"`
}

// Stores returns the TiKV stores that PD knows, in PD's order: those that are offline or down too, but no
// tombstones and no TiFlash. That there is none is an error, for then PD has forgotten its cluster, or has none
// yet. Errors are of type *httpclient.Error.
func (c *Client) Stores(ctx context.Context) ([]storematch.Store, error) {
	var found []storematch.Store
	err := c.servers.Try(ctx, func(ctx context.Context, server int) error {
		u := c.servers.URLs()[server].JoinPath("/pd/api/v1/stores")
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET " + u.String(), Err: err}
		}
		_, body, err := c.servers.Do(ctx, req) //nolint:bodyclose // Do has read and closed it.
		if err != nil {
			return notBootstrapped(err)
		}
		if found, err = parse(body); err != nil {
			return &httpclient.Error{Reason: httpclient.ReasonResponse, Request: "GET " + u.String(), Err: err, Hint: httpclient.HintURL}
		}
		return nil
	})
	return found, err
}

// notBootstrapped adds to PD's own words what they mean.
func notBootstrapped(err error) error {
	var e *httpclient.Error
	if errors.As(err, &e) && strings.Contains(e.Err.Error(), "ErrNotBootstrapped") {
		e.Hint = "the cluster has no store yet: start TiKV"
	}
	return err
}

func parse(body []byte) ([]storematch.Store, error) {
	var answer storesAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("it is no list of stores: %w", err)
	}
	var found []storematch.Store
next:
	for _, s := range answer.Stores {
		if s.Store.ID == 0 || s.Store.Address == "" || s.Store.StateName == "Tombstone" {
			continue
		}
		for _, l := range s.Store.Labels {
			if l.Key == "engine" && (l.Value == "tiflash" || l.Value == "tiflash_compute") {
				continue next
			}
		}
		found = append(found, storematch.Store{
			ID: strconv.FormatUint(s.Store.ID, 10), Address: s.Store.Address, StatusAddress: s.Store.StatusAddress,
		})
	}
	if len(found) == 0 {
		return nil, errors.New("it lists no TiKV store")
	}
	return found, nil
}
