// SPDX-License-Identifier: Apache-2.0

// Package pd gets the stores of a TiKV cluster from PD, its placement driver.
package pd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/operator-store/operator_store_exporter/config"
	"github.com/operator-store/operator_store_exporter/internal/httpclient"
	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// Client queries the PD of one cluster, which may have several endpoints. It is safe for concurrent
// use.
type Client struct{ servers *httpclient.Servers }

// New returns a client for cfg. The error says which credential or certificate cannot be used.
func New(cfg config.PD) (*Client, error) {
	servers, err := httpclient.New("pd", cfg.Server)
	if err != nil {
		return nil, err
	}

	return &Client{servers: servers}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.servers.Close() }

// Stores returns the TiKV stores that PD knows, in PD's order. Stores that are offline or down are
// included; tombstones and TiFlash are not. An empty list is an error, because it means that PD has
// lost its data or that its cluster is not bootstrapped yet. Errors wrap an *httpclient.Error.
func (c *Client) Stores(ctx context.Context) ([]storematch.Store, error) {
	var stores []storematch.Store
	err := c.servers.Failover(ctx, func(ctx context.Context, base *url.URL) (err error) {
		stores, err = c.storesFrom(ctx, base)
		return err
	})

	return stores, err
}

// storesFrom returns the stores that one endpoint knows.
func (c *Client) storesFrom(ctx context.Context, base *url.URL) ([]storematch.Store, error) {
	u := base.JoinPath("/pd/api/v1/stores").String()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &httpclient.Error{Reason: httpclient.ReasonConnection, Request: "GET " + u, Err: err}
	}

	body, err := c.servers.Do(ctx, req)
	if err != nil {
		return nil, explainNotBootstrapped(err)
	}

	stores, err := parseStores(body)
	if err != nil {
		return nil, &httpclient.Error{
			Reason: httpclient.ReasonResponse, Request: "GET " + u, Err: err, Hint: httpclient.HintURL,
			StatusCode: http.StatusOK,
		}
	}

	return stores, nil
}

// explainNotBootstrapped adds a hint to PD's error for a cluster that has never had a store.
func explainNotBootstrapped(err error) error {
	if e, ok := httpclient.AsError(err); ok && strings.Contains(e.Err.Error(), "ErrNotBootstrapped") {
		e.Hint = "the cluster has no store yet: start TiKV"
	}

	return err
}

// storesResponse is the part of PD's response to GET /pd/api/v1/stores that is used. PD omits
// fields that are zero.
type storesResponse struct {
	Stores []struct {
		Store storeMeta `json:"store"`
	} `json:"stores"`
}

type storeMeta struct {
	ID            uint64 `json:"id"`
	Address       string `json:"address"`
	StatusAddress string `json:"status_address"`
	StateName     string `json:"state_name"`
	Labels        []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"labels"`
}

// isTiFlash reports whether the store is TiFlash, which registers with PD like TiKV does.
func (s storeMeta) isTiFlash() bool {
	for _, l := range s.Labels {
		if l.Key == "engine" && (l.Value == "tiflash" || l.Value == "tiflash_compute") {
			return true
		}
	}

	return false
}

func parseStores(body []byte) ([]storematch.Store, error) {
	var response storesResponse
	if err := json.Unmarshal(body, &response); err != nil {
		return nil, fmt.Errorf("the response is not a list of stores: %w", err)
	}

	var stores []storematch.Store
	for _, entry := range response.Stores {
		s := entry.Store
		if s.ID == 0 || s.Address == "" || s.StateName == "Tombstone" || s.isTiFlash() {
			continue
		}
		stores = append(stores, storematch.Store{
			ID:            strconv.FormatUint(s.ID, 10),
			Address:       s.Address,
			StatusAddress: s.StatusAddress,
		})
	}
	if len(stores) == 0 {
		return nil, errors.New("the response contains no TiKV store")
	}

	return stores, nil
}
