package envoydump

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// What is looked at of Envoy's resources, as a dump writes them.

type cluster struct {
	Name      string
	Type      string
	Endpoints struct {
		Endpoints []struct {
			Hosts []struct {
				Endpoint struct {
					Address struct {
						Socket struct {
							Address string
						} `json:"socket_address"`
					}
				}
			} `json:"lb_endpoints"`
		}
	} `json:"load_assignment"`
	HealthChecks []healthCheck `json:"health_checks"`
	Outliers     *outliers     `json:"outlier_detection"`
	Transport    *struct{}     `json:"transport_socket"`
}

type healthCheck struct {
	Timeout, Interval duration
	Unhealthy         uint32 `json:"unhealthy_threshold"`
	Healthy           uint32 `json:"healthy_threshold"`
	HTTP              *struct {
		Path  string
		Codec string `json:"codec_client_type"`
	} `json:"http_health_check"`
	GRPC *struct{} `json:"grpc_health_check"`
	TCP  *struct{} `json:"tcp_health_check"`
}

type outliers struct {
	Errors   *uint32  `json:"consecutive_5xx"`
	Interval duration `json:"interval"`
	Base     duration `json:"base_ejection_time"`
	Percent  *uint32  `json:"max_ejection_percent"`
}

type routeConfig struct {
	Name  string
	Hosts []virtualHost `json:"virtual_hosts"`
}

type virtualHost struct {
	Name    string
	Domains []string
	Routes  []route
}

type route struct {
	Name   string
	Match  match
	Route  *action
	Direct *struct{ Status uint32 } `json:"direct_response"`
}

type match struct {
	Prefix  *string
	Path    *string
	Regex   *regex `json:"safe_regex"`
	Headers []header
	Query   []struct {
		Name   string
		String *text `json:"string_match"`
	} `json:"query_parameters"`
	GRPC *struct{} `json:"grpc"`
}

type regex struct{ Regex string }

type header struct {
	Name    string
	Invert  bool      `json:"invert_match"`
	Present *bool     `json:"present_match"`
	String  *text     `json:"string_match"`
	Range   *interval `json:"range_match"`
	// As Envoy wrote them before string_match.
	Exact  *string `json:"exact_match"`
	Prefix *string `json:"prefix_match"`
	Suffix *string `json:"suffix_match"`
	Regex  *regex  `json:"safe_regex_match"`
}

type text struct {
	Exact, Prefix, Suffix *string
	Regex                 *regex `json:"safe_regex"`
}

type interval struct{ Start, End json.Number }

type action struct {
	Cluster  string
	Weighted *struct {
		Clusters []struct {
			Name   string
			Weight uint32
		}
	} `json:"weighted_clusters"`
	Timeout *duration
	Idle    *duration `json:"idle_timeout"`
	Retry   *struct {
		On     string    `json:"retry_on"`
		Num    *uint32   `json:"num_retries"`
		PerTry *duration `json:"per_try_timeout"`
		Codes  []uint32  `json:"retriable_status_codes"`
	} `json:"retry_policy"`
}

// duration is one as JSON of protobuf has it: "0.250s".
type duration time.Duration

// UnmarshalJSON implements json.Unmarshaler. What is not a valid duration counts as none: a dump is of any
// version of Envoy.
func (d *duration) UnmarshalJSON(b []byte) error {
	s, err := strconv.Unquote(string(b))
	if err != nil || !strings.HasSuffix(s, "s") {
		return nil
	}
	if v, err := time.ParseDuration(s); err == nil {
		*d = duration(v)
	}
	return nil
}

// spec is the API's form.
func (d duration) spec() map[string]any {
	return map[string]any{"unit": "ms", "value": time.Duration(d).Milliseconds()}
}
