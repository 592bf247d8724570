{{/*
What each service is: the module and image it runs, its doors, and the measures it scales by. The one table; every
template that ranges over services reads it. `setting` is the environment name that moves the door to `target`, a port
an unprivileged user may bind. `meters` are metrics that Posta exports, each under the key of `autoscaling` that says what a
pod is to carry: `shared` where it is one figure for the release, of which each pod carries its part, and `absolute` where
more pods do not divide it (an age).
*/}}
{{- define "posta.table" -}}
submission:
  image: submission
  takes: tls
  doors:
    submission: {setting: POSTA_SUBMISSION_PORT, target: 2587}
    submissions: {setting: POSTA_SUBMISSION_TLS_PORT, target: 2465, implicit: true}
  meters:
    target: {name: posta_submission_connections}
    messages: {name: posta_submission_messages_in_hand}
mx:
  image: mxrouter
  shut: [POSTA_RELAY_ENABLED]
  takes: tls
  doors:
    smtp: {setting: POSTA_MXROUTER_PORT, target: 2525}
  meters:
    target: {name: posta_mxrouter_connections}
    messages: {name: posta_mxrouter_messages_in_hand}
relay:
  image: mxrouter
  shut: [POSTA_MXROUTER_PORT]
  sends: true
  meters:
    target: {name: posta_delivery_spool_overdue_seconds, by: {kind: remote}, shared: true, absolute: true}
filter:
  image: filter
  asks: true
  meters:
    target: {name: posta_filter_scans_in_hand}
delivery:
  image: delivery
  meters:
    target: {name: posta_delivery_work_pending, by: {subject: local}, shared: true}
imap:
  image: imap
  takes: tls
  doors:
    imap: {setting: POSTA_IMAP_PORT, target: 2143}
    imaps: {setting: POSTA_IMAP_TLS_PORT, target: 2993, implicit: true}
  meters:
    target: {name: posta_imap_connections}
pop:
  image: pop
  takes: tls
  doors:
    pop3: {setting: POSTA_POP_PORT, target: 2110}
    pop3s: {setting: POSTA_POP_TLS_PORT, target: 2995, implicit: true}
  meters:
    target: {name: posta_pop_connections}
sync:
  image: sync
  takes: tls
  doors:
    http: {setting: POSTA_SYNC_PORT, target: 2080, http: true}
    https: {setting: POSTA_SYNC_TLS_PORT, target: 2443, implicit: true, http: true}
  meters:
    target: {name: posta_sync_requests_total, rate: true}
{{- end }}

{{/* The services that are on, each as what its values and `defaults` together say plus its row of the table. */}}
{{- define "posta.services" -}}
{{- $root := . -}}
{{- $found := dict -}}
{{- range $name, $row := include "posta.table" . | fromYaml -}}
{{- $given := get $root.Values.services $name | default dict -}}
{{- $all := mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $given) -}}
{{- range $door, $_ := $all.ports -}}
{{- if not (hasKey ($row.doors | default dict) $door) -}}{{- fail (printf "services.%s.ports.%s: no such door" $name $door) -}}{{- end -}}
{{- end -}}
{{- if $all.enabled -}}
{{- $_ := set $found $name (merge (dict "row" $row) $all) -}}
{{- end -}}
{{- end -}}
{{- $found | toYaml -}}
{{- end }}

{{/* The doors of one service that are open: name -> {port, target, implicit, http}. */}}
{{- define "posta.doors" -}}
{{- $open := dict -}}
{{- $ports := .service.ports | default dict -}}
{{- range $door, $row := .service.row.doors -}}
{{- $port := get $ports $door | default 0 | int -}}
{{- if gt $port 0 -}}
{{- $_ := set $open $door (merge (dict "port" $port) $row) -}}
{{- end -}}
{{- end -}}
{{- $open | toYaml -}}
{{- end }}
