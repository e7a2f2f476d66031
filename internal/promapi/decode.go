// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

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

// partialError says why a response may lack series.
type partialError struct{ cause string }

// Error implements error.
func (e partialError) Error() string { return e.cause }

// causeIsPartial is why a response of VictoriaMetrics may lack series. It has no warnings.
const causeIsPartial = "the response is marked isPartial: it lacks data"

// annotationPrefix begins the annotations of PromQL, such as "PromQL warning: ..." and "PromQL
// info: ...". They are about the expression. Every other warning means that the response may lack
// series, such as that of a failed remote read or of a Thanos store that could not be reached.
const annotationPrefix = "PromQL "

var errSeriesLimit = errors.New("over series_limit")

// decoder decodes responses of the query API. It accepts what the API documents and nothing else.
// Go's encoding/json is lenient: a value that is null, missing, or of another type would be decoded
// as a zero, which looks like a number.
type decoder struct {
	seriesLimit  int
	allowPartial bool // Responses that may lack series are accepted.
	partial      bool // The response may lack series.

	interned map[string]string // Label names and values, which repeat from series to series.
	builder  labels.ScratchBuilder
}

func newDecoder(seriesLimit int, allowPartial bool) *decoder {
	return &decoder{seriesLimit: seriesLimit, allowPartial: allowPartial, interned: map[string]string{}}
}

// vector decodes the response to an instant query for an instant vector.
func (d *decoder) vector(body []byte) (promql.Vector, error) {
	result, err := d.result(body, "vector")
	if err != nil {
		return nil, err
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

// matrix decodes the response to an instant query for a range vector.
func (d *decoder) matrix(body []byte) (promql.Matrix, error) {
	result, err := d.result(body, "matrix")
	if err != nil {
		return nil, err
	}

	var matrix promql.Matrix
	err = jx.DecodeBytes(result).Arr(func(series *jx.Decoder) error {
		if len(matrix) == d.seriesLimit {
			return errSeriesLimit
		}
		s, err := d.samples(series)
		matrix = append(matrix, s)

		return err
	})

	return matrix, err
}

// result returns the undecoded result of a response to an instant query, whose type must be the
// given one.
func (d *decoder) result(body []byte, want string) ([]byte, error) {
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
	if err == nil && kind != want {
		err = fmt.Errorf("the response is a %q, want a %s", kind, want)
	}

	return result, err
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

// envelope is the part of a response around its data, which is the same for all requests.
type envelope struct {
	status  string
	failed  apiError
	partial string // Why the response may lack series; "" if it is complete.
	hasData bool
}

// response decodes the envelope of a response, and its data with decodeData. The fields may come in
// any order, so the data is decoded before it is known whether the response is an error or partial.
func (d *decoder) response(body []byte, decodeData func(*jx.Decoder) error) error {
	var e envelope
	err := jx.DecodeBytes(body).ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "status":
			e.status, err = field.Str()
		case "errorType":
			e.failed.kind, err = field.Str()
		case "error":
			e.failed.message, err = field.Str()
		case "isPartial":
			err = e.decodeIsPartial(field)
		case "warnings":
			err = e.decodeWarnings(field)
		case "data":
			if field.Next() == jx.Null {
				return field.Skip()
			}
			e.hasData = true
			err = decodeData(field)
		default:
			err = field.Skip()
		}

		return err
	})

	d.partial = e.partial != ""
	switch {
	case e.status == "error": // Even if the rest cannot be decoded.
		return e.failed
	case err != nil:
		return err
	case e.status != "success":
		return fmt.Errorf("the status of the response is %q, want \"success\"", e.status)
	case d.partial && !d.allowPartial:
		return partialError{e.partial}
	case !e.hasData:
		return errors.New("the response has no data")
	default:
		return nil
	}
}

func (e *envelope) decodeIsPartial(field *jx.Decoder) error {
	isPartial, err := field.Bool()
	if isPartial && e.partial == "" {
		e.partial = causeIsPartial
	}

	return err
}

// decodeWarnings keeps the first warning that is not an annotation of PromQL.
func (e *envelope) decodeWarnings(field *jx.Decoder) error {
	if field.Next() == jx.Null {
		return field.Skip()
	}

	return field.Arr(func(item *jx.Decoder) error {
		warning, err := item.Str()
		if !strings.HasPrefix(warning, annotationPrefix) && e.partial == "" {
			e.partial = "the response may lack series: " + warning
		}

		return err
	})
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

// samples decodes a series with its samples.
func (d *decoder) samples(series *jx.Decoder) (promql.Series, error) {
	var s promql.Series
	if series.Next() == jx.Null {
		return s, errors.New("the response contains a series that is null")
	}

	err := series.ObjBytes(func(field *jx.Decoder, key []byte) (err error) {
		switch string(key) {
		case "metric":
			s.Metric, err = d.labels(field)
		case "histograms":
			return errors.New("the response contains native histograms, want numbers")
		case "values":
			err = field.Arr(func(pair *jx.Decoder) error {
				ms, v, err := decodeValue(pair)
				s.Floats = append(s.Floats, promql.FPoint{T: ms, F: v})

				return err
			})
		default:
			err = field.Skip()
		}

		return err
	})
	if err == nil && len(s.Floats) == 0 {
		err = fmt.Errorf("the response contains a series without values: %s", s.Metric)
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
