# {{ site.name }}: kubectl apply --filename deploy/kubernetes.yaml
# First the secrets: kubectl create secret generic {{ site.name }} --from-env-file={{ site.name }}.env
# (DJANGO_SECRET_KEY, REDIS_URL and what else the settings read). Redis and the database are not part of this file.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ site.name }}
  labels: {app.kubernetes.io/name: {{ site.name }}}
spec:
  replicas: 2
  selector:
    matchLabels: {app.kubernetes.io/name: {{ site.name }}}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels: {app.kubernetes.io/name: {{ site.name }}}
    spec:
      automountServiceAccountToken: false
      # More than preStop and the time in which the server says goodbye to its sockets.
      terminationGracePeriodSeconds: {{ grace_seconds }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: site
          image: {{ image }}
          ports:
            - {name: http, containerPort: {{ site.port }}}
          envFrom:
            - secretRef: {name: {{ site.name }}}
          # The probes name a host of the site: without one, Django would refuse the address of the pod (ALLOWED_HOSTS).
          startupProbe:
            httpGet: &alive
              path: /healthz
              port: http
              httpHeaders: &host
{% for name, value in probe_pairs %}
                - {name: {{ name }}, value: {{ value }}}
{% endfor %}
            periodSeconds: 2
            timeoutSeconds: 3
            failureThreshold: 30
          livenessProbe:
            httpGet: *alive
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          # Redis and the database answer, and the pod does not leave. It waits for 2 s for the answers.
          readinessProbe:
            httpGet:
              path: /readyz
              port: http
              httpHeaders: *host
            periodSeconds: 5
            timeoutSeconds: 4
            failureThreshold: 2
          lifecycle:
            preStop:
              # New connections go elsewhere before the server ends: Services and proxies take a moment to know.
              exec: {command: ["sh", "-c", "{{ pre_stop }}"]}
          resources:
            requests: {cpu: 100m, memory: 256Mi}
            limits: {memory: 1Gi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
{% for each in container_data %}
            - {name: data{{ forloop.counter }}, mountPath: {{ each }}}
{% endfor %}
      volumes:
        - name: tmp
          emptyDir: {}
{% for each in container_data %}
        # Gone with the pod, and not shared: take a persistentVolumeClaim, or better a database and an object store.
        - name: data{{ forloop.counter }}
          emptyDir: {}
{% endfor %}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ site.name }}
  labels: {app.kubernetes.io/name: {{ site.name }}}
spec:
  selector: {app.kubernetes.io/name: {{ site.name }}}
  ports:
    - {name: http, port: 80, targetPort: http}
# In front an Ingress with TLS. Its proxy must wait longer than PING_INTERVAL ({{ ping_interval }} s) for a silent socket; with ingress-nginx:
#
# apiVersion: networking.k8s.io/v1
# kind: Ingress
# metadata:
#   name: {{ site.name }}
#   annotations:
#     nginx.ingress.kubernetes.io/proxy-read-timeout: "{{ site.silence }}"
#     nginx.ingress.kubernetes.io/proxy-send-timeout: "{{ site.silence }}"
# spec:
#   tls:
#     - {hosts: [{{ site.host }}], secretName: {{ site.name }}-tls}
#   rules:
#     - host: {{ site.host }}
#       http:
#         paths:
#           - path: /
#             pathType: Prefix
#             backend: {service: {name: {{ site.name }}, port: {name: http}}}
