// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/go-faster/jx"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// apiError is an error that the query API returned with a status of 2xx.
type apiError struct {
	kind    string // Such as "execution".
	message string
}

// Error implements error.
func (e apiError) Error() string { return e.message }

func (e apiError) timedOut() bool { return e.kind == "timeout" || e.kind == "canceled" }

var (
	errPartial     = errors.New("the response is marked isPartial: it lacks data")
	errSeriesLimit = errors.New("over series_limit")
)

// decoder decodes responses of the query API. It accepts what the API documents and nothing else.
// Go's encoding/json is lenient: a value that is null, missing, or of another type would be decoded
// as a zero, which looks like a number.
type decoder struct {
	seriesLimit  int
	allowPartial bool // Responses that lack data are accepted.

	interned map[string]string // Label names and values, which repeat from series to series.
	builder  labels.ScratchBuilder
}

func newDecoder(seriesLimit int, allowPartial bool) *decoder {
	return &decoder{seriesLimit: seriesLimit, allowPartial: allowPartial, interned: map[string]string{}}
}

// vector decodes the response to an instant query.
func (d *decoder) vector(body []byte) (promql.Vector, error) {
	var (
		kind   string
		result []byte
	)
	// The result may precede its type, so it is decoded once the type is known.
	err := d.response(body, func(data *jx.Decoder) error {
		return data.ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
			switch string(key) {
			case "resultType":
				kind, err = field.Str()
			case "result":
				result, err = field.Raw()
			default:
				err = field.Skip()
			}

			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case kind != "vector":
		return nil, fmt.Errorf("the response is a %q, want a vector", kind)
	}

	// A series has some hundred bytes. The estimate saves most of the growing.
	vector := make(promql.Vector, 0, min(len(result)/200, d.seriesLimit))
	err = jx.DecodeBytes(result).Arr(func(series *jx.Decoder) error {
		if len(vector) == d.seriesLimit {
			return errSeriesLimit
		}
		s, err := d.sample(series)
		vector = append(vector, s)

		return err
	})

	return vector, err
}

// series decodes the response of the series API.
func (d *decoder) series(body []byte) ([]labels.Labels, error) {
	var all []labels.Labels
	err := d.response(body, func(data *jx.Decoder) error {
		return data.Arr(func(series *jx.Decoder) error {
			if len(all) == d.seriesLimit {
				return errSeriesLimit
			}
			l, err := d.labels(series)
			all = append(all, l)

			return err
		})
	})

	return all, err
}

// response decodes what all responses have in common, and their data with decodeData.
func (d *decoder) response(body []byte, decodeData func(*jx.Decoder) error) error {
	var (
		status  string
		failed  apiError
		partial bool
		hasData bool
	)
	err := jx.DecodeBytes(body).ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "status":
			status, err = field.Str()
		case "errorType":
			failed.kind, err = field.Str()
		case "error":
			failed.message, err = field.Str()
		case "isPartial":
			partial, err = field.Bool()
		case "data":
			if field.Next() == jx.Null {
				return field.Skip()
			}
			hasData = true
			err = decodeData(field)
		default: // This includes warnings, which may be annotations of PromQL.
			err = field.Skip()
		}

		return err
	})

	switch {
	case status == "error": // Even if the rest cannot be decoded.
		return failed
	case err != nil:
		return err
	case status != "success":
		return fmt.Errorf("the status of the response is %q, want \"success\"", status)
	case partial && !d.allowPartial:
		return errPartial
	case !hasData:
		return errors.New("the response has no data")
	default:
		return nil
	}
}

// sample decodes a series with its one sample.
func (d *decoder) sample(series *jx.Decoder) (promql.Sample, error) {
	const noTime = math.MinInt64

	s := promql.Sample{T: noTime}
	if series.Next() == jx.Null {
		return s, errors.New("the response contains a series that is null")
	}

	err := series.ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "metric":
			s.Metric, err = d.labels(field)
		case "value":
			s.T, s.F, err = decodeValue(field)
		case "histogram":
			return errors.New("the response contains a native histogram, want a number")
		default:
			err = field.Skip()
		}

		return err
	})
	if err == nil && s.T == noTime {
		err = fmt.Errorf("the response contains a series without a value: %s", s.Metric)
	}

	return s, err
}

// decodeValue decodes the two elements of a value: the time in seconds, and the number as a string.
func decodeValue(pair *jx.Decoder) (ms int64, v float64, err error) {
	n := 0
	err = pair.Arr(func(item *jx.Decoder) error {
		n++
		switch n {
		case 1:
			seconds, err := item.Float64()
			ms = int64(math.Round(seconds * 1000))

			return err
		case 2:
			text, err := item.StrBytes()
			if err != nil {
				return err
			}
			v, err = strconv.ParseFloat(string(text), 64)

			return err
		default:
			return errors.New("a value has more than two elements, want a time and a number")
		}
	})
	if err == nil && n != 2 {
		err = errors.New("a value has fewer than two elements, want a time and a number")
	}

	return ms, v, err
}

// labels decodes a label set.
func (d *decoder) labels(set *jx.Decoder) (labels.Labels, error) {
	d.builder.Reset()
	err := set.ObjBytes(func(field *jx.Decoder, name []byte) error {
		value, err := field.StrBytes()
		d.builder.Add(d.intern(name), d.intern(value))

		return err
	})
	if err != nil {
		return labels.EmptyLabels(), err
	}
	d.builder.Sort()

	return d.builder.Labels(), nil
}

// intern returns b as a string. Equal strings share their memory: a response has far fewer
// different label names and values than series.
func (d *decoder) intern(b []byte) string {
	if s, ok := d.interned[string(b)]; ok {
		return s
	}
	s := string(b)
	d.interned[s] = s

	return s
}
